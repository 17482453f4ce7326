"""The root of every error, and the one question that a caller asks of it: try again, or not."""


class GarrisonError(Exception):
    """Base of all errors; the text tells a person what was wrong, where, and what would do."""


class RejectedError(GarrisonError):
    """The request or its input is wrong: doing the same again fails again."""


class UnavailableError(GarrisonError):
    """We or a peer cannot serve now: the same request may succeed later."""
