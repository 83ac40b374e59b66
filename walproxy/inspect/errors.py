"""What `walproxy inspect` ends with.

WalproxyError
├── TargetUnusable   1  not WAL, or WAL that cannot be read from there
└── WalDamaged       3  the WAL is not what was written, from an exact place on
"""

from walproxy.errors import WalproxyError


class TargetUnusable(WalproxyError):
    """The target or an option does not fit. Nothing was read."""

    exit_code = 1


class WalDamaged(WalproxyError):
    """All records up to the place were good and have been shown. Fetch another copy of the file it names."""

    exit_code = 3
