"""What is wrong with an index, as one sentence."""

from __future__ import annotations

from pathlib import Path

from preflight.finding import ConfigError, Finding, Severity


def refused(path: Path, why: str, severity: Severity = "error", fix: str | None = None) -> ConfigError:
    """`path` cannot be read as an index: an error where the trainer could not either, a note where only we cannot."""
    return ConfigError(Finding(id="dataset", severity=severity, message=f"{path} {why}.", fix=fix))


def wrong(message: str) -> ConfigError:
    """The command line asks for something that cannot be."""
    return ConfigError(Finding(id="command-line", severity="error", message=message))
