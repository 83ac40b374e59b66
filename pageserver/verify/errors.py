"""What can go wrong while verifying, differences apart: those are the result.

VerifyError
├── PrimaryUnsuitable     the primary cannot be read this way
├── DirectoryUnsuitable   the data directory cannot be compared
├── WrongCluster          primary and pageserver do not belong together
├── PageserverBehind      the pageserver does not reach the LSN of the primary
└── ServerFailed          a connection broke, or a server refused what was asked
    RelationBusy          a lock could not be had
    HistoryMissing        what a page was before cannot be told
    RelationGone          dropped or replaced since it was listed
"""

from pageserver.errors import ExitCode, PageserverError


class VerifyError(PageserverError):
    """Base of what ends a verification without a result."""


class PrimaryUnsuitable(VerifyError):
    """The primary lacks something: a privilege, an extension. The message says what to do."""

    exit_code = ExitCode.USAGE


class DirectoryUnsuitable(VerifyError):
    """There is no stopped server in it. Stop it with a shutdown checkpoint."""

    exit_code = ExitCode.USAGE


class WrongCluster(VerifyError):
    """Primary and pageserver are of two clusters. Correct the connection strings."""

    exit_code = ExitCode.REFUSED


class PageserverBehind(VerifyError):
    """The pageserver does not get to an LSN that the primary has flushed. See its status."""


class ServerFailed(VerifyError):
    """A connection broke, or a server refused what was asked of it. The message has its words."""


class HistoryMissing(Exception):
    """We do not know the page's records that far back. Nothing is proved."""


class RelationBusy(Exception):
    """Somebody holds the relation in a stronger lock. Come back to it."""


class RelationGone(Exception):
    """The relation is not what it was when it was listed. List it anew, or note that it vanished."""
