"""Installs tfprune; everything a user or the gate needs is named here."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "tfprune" / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE
).group(1)

setup(
    name="tfprune",
    version=VERSION,
    description="Structured pruning for Keras 3 that tells you what it did to your model's uncertainty",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["tfprune", "tfprune.*"]),
    package_data={"": ["*.jinja", "*.css", "*.js", "*.json"]},
    python_requires=">=3.10",
    install_requires=[
        "tensorflow>=2.18",
        "keras>=3.6",
        # 0.8.0 pins numpy 1, which has no Python 3.13 wheels.
        "tensorflow-model-optimization>=0.8.1",
        # TFMOT imports it; its minor version must be TensorFlow's, which pip resolves from this bound.
        "tf-keras>=2.18",
        "tensorflow-datasets>=4.9",
        # Needs Python 3.11 from 1.14 on; where an index does not say so, pip searches for minutes on Python 3.10.
        "etils<1.14; python_version < '3.11'",
        "numpy>=1.26",
        "scikit-learn>=1.4",
        "scipy>=1.11",
        "matplotlib>=3.8",
        "joblib>=1.3",
        "pandas>=2.1",
        "jinja2>=3.1",
        "rich>=13",
        "tomli>=2; python_version < '3.11'",
    ],
    extras_require={
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.5",
            "hypothesis>=6",
            "ruff>=0.9",
            "nbclient>=0.10",
            "ipykernel>=6",
            # A study runs on a cluster of one, here.
            "distributed>=2024.2",
            # TensorFlow 2.21 no longer brings it; the TensorBoard callback is tested beside ours.
            "tensorboard>=2.18",
            "pyarrow>=15",
            # The report is looked at in a browser: chromium and chromedriver of the system, where they are.
            "selenium>=4.15",
            # The metrics are compared with these; those that need torch are in the extra "verify".
            "relplot>=1.0",
            "statsmodels>=0.14",
            "tensorflow-probability>=0.24",
            "uncertainty-calibration>=0.1.4",
            "uncertainty-toolbox>=0.1.1",
        ],
        "verify": ["torchmetrics>=1.4", "netcal>=1.4", "pytorch-ood>=0.4", "laplace-torch>=0.3"],
        "tensorboard": ["tensorboard>=2.18"],
        "parquet": ["pyarrow>=15"],
        "dask": ["distributed>=2024.2"],
        "ray": ["ray>=2.30"],
        "onnx": ["tf2onnx>=1.16", "onnx>=1.16", "onnxruntime>=1.18"],
        "docs": ["mkdocs>=1.6", "mkdocs-jupyter>=0.25", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.26"],
        "hub": ["keras-hub>=0.18"],
        "notebooks": ["jupyterlab>=4"],
        "gpu": ["tensorflow[and-cuda]>=2.18"],
    },
    entry_points={"console_scripts": ["tfprune = tfprune.__main__:main"]},
    classifiers=[
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
