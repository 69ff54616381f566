"""Why a request fails on a server."""


class Refused(Exception):
    """A server did not do what it was asked; the message is the reason that a request fails for."""
