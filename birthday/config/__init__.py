"""All settings. Only this package reads them from the environment; they are checked before anything starts."""

from birthday.config.checks import check_channel, check_listener
from birthday.config.loading import apply_env_file, load_settings, misspelt_settings, take_notify_socket
from birthday.config.settings import Settings
from birthday.config.shown import documented_settings, effective_settings, shared_settings
from birthday.config.smtp import SmtpServer, Tls, read_sender, read_smtp_url
from birthday.config.urls import mask_path, mask_url
from birthday.config.values import ApiKey, Network, Protected, Role, Scope, is_loopback, parse_duration, show_duration

__all__ = [
    "ApiKey",
    "Network",
    "Protected",
    "Role",
    "Scope",
    "Settings",
    "SmtpServer",
    "Tls",
    "apply_env_file",
    "check_channel",
    "check_listener",
    "documented_settings",
    "effective_settings",
    "is_loopback",
    "load_settings",
    "mask_path",
    "mask_url",
    "misspelt_settings",
    "parse_duration",
    "read_sender",
    "read_smtp_url",
    "shared_settings",
    "show_duration",
    "take_notify_socket",
]
