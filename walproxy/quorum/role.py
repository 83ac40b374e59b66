"""Role: what a member's proposer does at the moment."""

import enum


class Role(enum.Enum):
    FOLLOWING = "takes WAL from a proposer, or waits for its time to stand"
    ASKING = "asks whether it would be elected"
    STANDING = "asks for votes in a new term"
    PROPOSING = "elected: streams the log and counts"
