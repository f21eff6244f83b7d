"""How a message reaches the outside: the channel protocol, its outcomes, and the channels there are."""

from birthday.channels.protocol import Channel, Delivered, Letter, Outcome, Permanent, Temporary, Unable

__all__ = ["Channel", "Delivered", "Letter", "Outcome", "Permanent", "Temporary", "Unable"]
