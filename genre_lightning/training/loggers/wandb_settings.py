"""W&B's settings file of the working directory: what it may set, as a stranger's folder may hold one."""

from __future__ import annotations

import configparser
from pathlib import Path

from genre_lightning.errors import ConfigError, one_line
from genre_lightning.yaml_files import read_text

_HARMLESS = frozenset({"disabled", "entity", "mode", "project"})
"""What `wandb init`, `wandb offline` and `wandb disabled` write, and which steers no request and runs nothing."""


def check_local_settings(folder: Path) -> None:
    """Refuse a settings file of W&B that could have the user's key sent to another server.

    Args:
        folder: W&B looks in its wandb/ and .wandb/; files in the home directory are the user's own.

    Raises:
        ConfigError: With the file, the setting, and the fix.
    """
    for name in ("wandb", ".wandb"):
        path = folder / name / "settings"
        if not path.exists():
            continue
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read_string(read_text(path))
        except (configparser.Error, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read ({one_line(error)[:160]}): delete it") from None
        given = {key for section in (parser.default_section, *parser.sections()) for key in parser[section]}
        if others := sorted(given - _HARMLESS):
            raise ConfigError(
                f"{path} sets {others[0]}, and settings of a folder may not choose where W&B sends your key and data: "
                "delete that line, and set it in ~/.config/wandb/settings or by an environment variable such as "
                "WANDB_BASE_URL"
            )
