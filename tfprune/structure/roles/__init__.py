"""What does each layer class, and each keras operation, do to channels?

This is the one table that knows layer classes. A `Role` says how channel labels flow through a layer, which axis of
each of its weights counts which channels, and which entries of its config hold a number of channels. What has no role
freezes the channels it touches. `register` teaches a new class in one line:

    roles.register(MyScale, roles.elementwise)
"""

from tfprune.structure.roles import feedforward, normalization, operations, sequences  # noqa: F401  they fill ROLES
from tfprune.structure.roles.base import (
    ROLES,
    Role,
    Uptake,
    elementwise,
    is_quantised,
    owner,
    part,
    public_name,
    register,
    role_of,
    unwrap,
)

__all__ = [
    "ROLES",
    "Role",
    "Uptake",
    "elementwise",
    "is_quantised",
    "owner",
    "part",
    "public_name",
    "register",
    "role_of",
    "unwrap",
]
