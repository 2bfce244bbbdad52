"""Settings: dumbwaiter.toml, then DUMBWAITER_* variables, then flags; the later wins.

A wrong key or value raises ConfigError naming the place (file and line, variable or flag), the wrong thing and the
nearest right one. Relative paths belong to the folder of the file that holds them; those of variables and flags, to
the current folder. Durations are seconds or text such as "500ms", "30s", "2m"; sizes are bytes or "64KiB", "32MB".
"""

from dumbwaiter.config.checking import anchored
from dumbwaiter.config.kubernetes import KubernetesSettings
from dumbwaiter.config.ledgers import ledgers_folder
from dumbwaiter.config.loading import Flag, load_settings, place_in_file
from dumbwaiter.config.scaler import ScalerSettings
from dumbwaiter.config.scaling import ScalingSettings
from dumbwaiter.config.settings import (
    TABLES,
    CourierSettings,
    GatewaySettings,
    ModelSettings,
    OutboundSettings,
    Settings,
    WorkerSettings,
    is_loopback,
)
from dumbwaiter.config.units import parse_duration, parse_size

__all__ = [
    "TABLES",
    "CourierSettings",
    "Flag",
    "GatewaySettings",
    "KubernetesSettings",
    "ModelSettings",
    "OutboundSettings",
    "ScalerSettings",
    "ScalingSettings",
    "Settings",
    "WorkerSettings",
    "anchored",
    "is_loopback",
    "ledgers_folder",
    "load_settings",
    "parse_duration",
    "parse_size",
    "place_in_file",
]
