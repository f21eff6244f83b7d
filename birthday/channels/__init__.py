"""How a message reaches the outside: the channel protocol, its outcomes, and the channels there are."""

from birthday.channels.protocol import Channel, Delivered, Greeting, Outcome, Permanent, Temporary, Unable

__all__ = ["Channel", "Delivered", "Greeting", "Outcome", "Permanent", "Temporary", "Unable"]
