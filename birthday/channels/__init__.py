"""How a message leaves the program: the channel protocol, its outcomes, and the channels."""

from birthday.channels.outcomes import Delivered, Greeting, Outcome, Permanent, Temporary, Unable
from birthday.channels.protocol import Channel

__all__ = ["Channel", "Delivered", "Greeting", "Outcome", "Permanent", "Temporary", "Unable"]
