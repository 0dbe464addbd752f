"""Write the screens of the documentation: commands in terminals of 80 and 120 columns, and HTML in a browser.

    python scripts/screens.py                          docs/figures/screen_*.svg, of real runs of the digits
    python scripts/screens.py --site site --report outputs/report.html      docs/figures/screen_*.png too

The commands run in a terminal of that width, in an empty folder; `make docs` builds the site. HTML needs a Chromium.
"""

from __future__ import annotations

import argparse
import fcntl
import io
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME
from rich.text import Text

FIGURES = Path(__file__).parent.parent / "docs" / "figures"
RUNS = ("-m", "dataset=digits_open", "method=erm,arpl", "seed=0,1", "figures=none")  # before the screens
# name -> columns and command
TERMINALS = {
    "help_80": (80, ("ltr-train", "--help", "loss")),
    "report_80": (80, ("ltr-report", "outputs/digits_open")),
    "report_120": (120, ("ltr-report", "outputs/digits_open")),
}
DOCUMENTS = {
    "docs_method": "methods/crt.html",
    "docs_reference": "reference.html",
    "docs_tutorial": "tutorials/fine_grained.html",
}
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_COLOURS = 64  # of a PNG


def in_terminal(command: tuple[str, ...], columns: int, folder: Path) -> str:
    """Return what a command prints in a terminal of this width, with its escape codes.

    Raises:
        RuntimeError: the command fails.
    """
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 100, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(command, cwd=folder, stdin=child, stdout=child, stderr=child,
                               env={**environment, "TERM": "xterm-256color"})  # fmt: skip
    os.close(child)
    blocks = []
    while True:
        try:
            block = os.read(parent, 65536)
        except OSError:  # Linux reports the end of a terminal in this way
            break
        if not block:
            break
        blocks.append(block)
    os.close(parent)
    if process.wait():
        raise RuntimeError(f"{' '.join(command)} ended with exit code {process.returncode}")
    return b"".join(blocks).decode().replace("\r\n", "\n")


def terminal_svg(command: tuple[str, ...], columns: int, output: str) -> str:
    """Return an SVG of a terminal in which a command was typed; it loads no fonts."""
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text(f"$ {' '.join(command)}", style="bold"))
    console.print(Text.from_ansi(output.rstrip("\n") + "\n"))
    svg = console.export_svg(title=f"{columns} columns", theme=DEFAULT_TERMINAL_THEME, unique_id="screen")
    svg = re.sub(r"@font-face \{.*?\}\n*", "", svg, flags=re.DOTALL)
    return svg.replace("Fira Code", "DejaVu Sans Mono, Menlo, Consolas")


def write_terminals(target: Path) -> None:
    """Run the commands and write ``screen_*.svg``."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(("ltr-train", *RUNS), cwd=folder, check=True, stdout=subprocess.DEVNULL)
        for name, (columns, command) in TERMINALS.items():
            path = target / f"screen_{name}.svg"
            path.write_text(terminal_svg(command, columns, in_terminal(command, columns, Path(folder))), "utf-8")
            print(path)


def write_screenshot(document: Path, path: Path, width: int = 1200, height: int = 800) -> None:
    """Write a screenshot of an HTML file, in few colours.

    Raises:
        SystemExit: no browser, or no such file.
    """
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None or not document.is_file():
        sys.exit(f"{document}: needed are the file, and one of the browsers {', '.join(_BROWSERS)}")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        flags = (
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={folder}/profile",
        )
        size = f"--window-size={width},{height}"
        subprocess.run((browser, *flags, size, f"--screenshot={shot}", document.resolve().as_uri()),
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        image = Image.open(shot).convert("RGB").resize((width * 3 // 4, height * 3 // 4), Image.Resampling.LANCZOS)
        image.quantize(_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FIGURES, help="folder of the files")
    parser.add_argument("--site", type=Path, help="the built site, whose HTML is shown")
    parser.add_argument("--report", type=Path, help="an HTML report")
    arguments = parser.parse_args()
    if arguments.site or arguments.report:
        for name, document in DOCUMENTS.items() if arguments.site else ():
            write_screenshot(arguments.site / document, arguments.out / f"screen_{name}.png")
        if arguments.report:
            write_screenshot(arguments.report, arguments.out / "screen_report.png", width=1400, height=1000)
        return
    write_terminals(arguments.out)


if __name__ == "__main__":
    main()
