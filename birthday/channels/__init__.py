"""How a message leaves the program: the channel protocol, its outcomes, and the channels."""

from birthday.channels.protocol import Channel, Delivered, Greeting, Outcome, Permanent, Temporary, Unable

__all__ = ["Channel", "Delivered", "Greeting", "Outcome", "Permanent", "Temporary", "Unable"]
