"""The command line of the server: an option for each setting, and what else may be wanted than a running server."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from docfleet.settings import Resolved, Settings, masked, resolve


def add_setting_options(parser: argparse.ArgumentParser) -> None:
    """Add one option for each setting, and `--config`."""
    parser.epilog = "Each setting is also an environment variable DOCFLEET_<NAME> and a key of the TOML file."
    for name, field in Settings.model_fields.items():
        flag = "--" + name.replace("_", "-")
        if field.annotation is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=field.description)
        else:
            shown = masked(field.get_default()) or "none"
            parser.add_argument(
                flag, metavar="VALUE", help=f"{field.description} (default: {shown})".replace("%", "%%")
            )
    parser.add_argument("--config", metavar="FILE", help="TOML file with settings (also DOCFLEET_CONFIG)")


def option_parser() -> argparse.ArgumentParser:
    """Return the command line: the settings, and what else may be wanted than a running server."""
    parser = argparse.ArgumentParser(prog="server.py", description="Parse documents on every device of this machine.")
    add_setting_options(parser)
    parser.add_argument("--show-config", action="store_true", help="print what holds and where it came from, and exit")
    parser.add_argument("--prefetch", action="store_true", help="fetch model weights for --tier, and exit")
    parser.add_argument(
        "--tier",
        choices=("auto", "basic", "standard", "advanced"),
        help="with --prefetch: the tier to fetch for (default: the best that can run here)",
    )
    parser.add_argument(
        "--prefetch-backend",
        choices=("auto", "onnx", "torch", "both"),
        help="with --prefetch: small models for workers on the CPU or without PyTorch (onnx), on accelerators with "
        "PyTorch (torch), or both (default: what this machine's workers load)",
    )
    return parser


@dataclass(frozen=True)
class Wish:
    """What the caller of the command line wants instead of a running server."""

    show_config: bool
    prefetch: bool
    #: With `prefetch`: the tier to fetch for; auto is the best that can run here.
    tier: str
    #: With `prefetch`: auto (what this machine loads) | onnx | torch | both.
    backend: str = "auto"


def parse_command_line(argv: Sequence[str] | None = None) -> tuple[Resolved, Wish]:
    """Return the settings of this run and what else is wanted."""
    parser = option_parser()
    arguments = vars(parser.parse_args(argv))
    if arguments["tier"] and not arguments["prefetch"]:
        parser.error("--tier belongs to --prefetch; documents name theirs in the option tier")
    if arguments["prefetch_backend"] and not arguments["prefetch"]:
        parser.error("--prefetch-backend belongs to --prefetch; MINERU_MODEL_SMALL_BACKEND decides what workers load")
    wish = Wish(
        arguments["show_config"],
        arguments["prefetch"],
        arguments["tier"] or "auto",
        arguments["prefetch_backend"] or "auto",
    )
    return resolve(arguments), wish
