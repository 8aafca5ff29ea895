"""What can be wrong with what a run is to be launched on."""


class ResolutionError(Exception):
    """What to launch can't be worked out, and trying again would not help.

    Attributes:
        reason: for people and for the server: what is wrong, and where. Holds no secret.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)
