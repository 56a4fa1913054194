"""``python -m wavegen COMMAND …``: every console command under one name; without arguments, a list of them."""

import argparse
import importlib
import pkgutil
import sys

from wavegen import commands


def main(argv: list[str] | None = None) -> int:
    """Run the command that the first argument names; returns its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    modules = {
        module.name.rstrip("_"): importlib.import_module(f"wavegen.commands.{module.name}")
        for module in pkgutil.iter_modules(commands.__path__)
    }
    if arguments and arguments[0] in modules:
        exit_code: int = modules[arguments[0]].main(arguments[1:])
        return exit_code

    parser = commands.command_parser("python -m wavegen", "Run one of wavegen's commands.")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    summaries = [f"  {name:<10}{(module.__doc__ or '').partition(': ')[2]}" for name, module in modules.items()]
    parser.epilog = "\n".join(["commands:", *summaries, "", "python -m wavegen COMMAND --help describes a command."])
    parser.add_argument("command", metavar="COMMAND", nargs="?", choices=modules, help="one of the commands below")
    parser.parse_args(arguments)
    parser.print_help()
    return 0


if __name__ == "__main__":
    sys.exit(main())
