# SPDX-License-Identifier: Apache-2.0
"""How every command group looks."""

from typing import Any

PLAIN: dict[str, Any] = {
    "no_args_is_help": True,
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
}
