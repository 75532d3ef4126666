"""How does a command reach a cluster of Dask or Ray?"""

import contextlib


@contextlib.contextmanager
def connected(backend, address):
    """Connects to a cluster for as long as the context lasts; what runs in it by joblib's backend runs there.

    Args:
        backend: "dask", "ray", "loky" or None; the latter two need no connection.
        address: Address of Dask's scheduler, such as "tcp://10.0.0.1:8786", or of Ray's head node, such as "auto".

    Raises:
        ValueError: An address without a backend that takes one, Dask without an address, or a package that is missing.
        OSError: Nobody answers at the address.
    """
    if address and backend not in ("dask", "ray"):
        raise ValueError(f"--cluster needs --backend dask or --backend ray. Received: --backend {backend}.")
    if backend == "dask":
        with _dask(address):
            yield
    elif backend == "ray" and address:
        with _ray(address):
            yield
    else:
        yield


def _dask(address):
    if not address:
        raise ValueError(
            "--backend dask needs the address of a scheduler. Received: none. Start one with `dask scheduler`, workers "
            "with `dask worker ADDRESS`, and pass --cluster ADDRESS, such as tcp://10.0.0.1:8786."
        )
    return _package("distributed", "dask").Client(address, timeout=10)


@contextlib.contextmanager
def _ray(address):
    ray = _package("ray", "ray")
    ray.init(address=address)
    try:
        yield
    finally:
        ray.shutdown()


def _package(name, extra):
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"--backend {extra} needs {name}. Install it: pip install 'tfprune[{extra}]'.") from error
