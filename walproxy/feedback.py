"""Hot standby feedback of the whole group: what the standbys of all nodes still read, told to the primary."""

from collections.abc import Iterable
from typing import Final

from walproxy.ports import Upstream
from walproxy.quorum.messages import Feedback
from walproxy.quorum.peer import Peer

_LOOK_EVERY_S: Final = 1.0
_TELL_EVERY_S: Final = 10.0
_FORGET_S: Final = 60.0  # A member that is silent this long, with its standbys, holds nothing on the primary.
_NONE: Final = Feedback()


def oldest(known: Iterable[Feedback]) -> Feedback:
    """The oldest of each."""
    known = tuple(known)
    xmin = min(((f.xmin_epoch, f.xmin) for f in known if f.xmin), default=(0, 0))
    catalog = min(((f.catalog_xmin_epoch, f.catalog_xmin) for f in known if f.catalog_xmin), default=(0, 0))
    return Feedback(xmin[1], xmin[0], catalog[1], catalog[0])


class FeedbackForwarder:
    """Tells one connection to the primary when it changes, and now and then.

    Args:
        now_s: when the connection began; members have a while to say what theirs is.
    """

    def __init__(self, upstream: Upstream, now_s: float) -> None:
        self._upstream = upstream
        self._sent = _NONE
        self._sent_s = self._looked_s = now_s

    def forward(self, own: Feedback, others: Iterable[Peer], now_s: float) -> None:
        """Tell that of all members, ourselves included, if it is time to. Raises PrimaryUnreachable."""
        if now_s - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s = now_s
        alive = (member.feedback for member in others if now_s - member.heard_s < _FORGET_S)
        feedback = oldest((own, *alive))
        if feedback != self._sent or now_s - self._sent_s >= _TELL_EVERY_S:
            self._upstream.feedback(feedback)
            self._sent, self._sent_s = feedback, now_s
