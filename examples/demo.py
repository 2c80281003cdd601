#!/usr/bin/env python3
"""Draws a sheet of fractals, each a token: pushes them, runs them in parallel, reads the images back from the pool.

demo.py [--folder FOLDER] [--slots N] [FILE]; FILE holds the parameters of one fractal a line (default: 24 of them).
"""

import argparse
import io
import os
import shlex
import subprocess
from datetime import datetime
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import tokenpool

HERE = Path(__file__).resolve().parent
PROGRAM = HERE / "bin" / "fractals"
IMAGE = "fractal.png"
STYLES = {"done": "green", "error": "red"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, help="parameters of one fractal a line")
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="where the pool and the sheet go")
    parser.add_argument("--slots", type=int, default=max(2, os.cpu_count() or 2), help="tokens run at a time")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    database = (options.folder / "tokenpool.db").resolve()
    for old in database.parent.glob("tokenpool.db*"):
        old.unlink()
    console = Console(highlight=False)
    with tokenpool.connect(f"sqlite:///{database}", create=True) as pool:
        pool.push(tokens_of(parameter_lines(options.file)), batch="fractals")
        summary = work(pool, options.slots, console)
        console.print(overview(pool))
        sheet = options.folder / "contact-sheet.png"
        draw_sheet(list(pool.tokens("state:done")), pool).save(sheet)
    console.print(f"The images, read back from the pool: [bold]{sheet}[/bold]")
    console.print(f"Look closer:  tokenpool -p sqlite:///{os.path.relpath(database)} list all", soft_wrap=True)
    raise SystemExit(3 if summary.failed else 0)


# --- the pool --------------------------------------------------------------------------------------------------------


def parameter_lines(file):
    """Return the parameters of the fractals, one text each."""
    if file is not None:
        return file.read_text("utf-8").splitlines()
    created = Path(
        subprocess.run([HERE / "create_tokens.sh"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    )
    try:
        return created.read_text("utf-8").splitlines()
    finally:
        created.unlink()


def tokens_of(lines):
    """Return one token for each line; the line is kept as its name."""
    program = shlex.quote(str(PROGRAM))
    return [
        {"_id": f"token_{n:02}", "name": line, "input": f"{program} -o fractal.ppm {line}"}
        for n, line in enumerate(lines)
    ]


def work(pool, slots, console):
    """Run all tokens here, so many at a time; attach each image to its token as soon as it is there."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(f"{slots} slots", total=pool.counts()["todo"])

        def observe(event):
            if event.kind == "finished":
                if event.state == "done":
                    attach_image(pool, event.token, Path(event.workdir, "fractal.ppm"))
                token, style = event.token, STYLES.get(event.state, "yellow")
                progress.console.print(
                    f"{token['_id']}  [{style}]{event.state:5}[/]  {seconds_of(token):4.1f} s  {token['name']}"
                )
                progress.advance(bar)

        return tokenpool.Worker(pool, tokenpool.WorkerOptions(slots=slots, quit=True), observe).run()


def attach_image(pool, token, ppm):
    """Attach a picture to its token as PNG, a tenth of the size, which a browser shows."""
    png = io.BytesIO()
    with Image.open(ppm) as image:
        image.save(png, "PNG")
    size = png.tell()
    png.seek(0)
    pool.backend.put_attachment(token["_id"], token["_rev"], IMAGE, png, size, "image/png")


def seconds_of(token):
    """Return how long the last attempt took."""
    start, end = (
        datetime.fromisoformat(token["attempts"][-1][key].replace("Z", "+00:00")) for key in ("start_time", "end_time")
    )
    return (end - start).total_seconds()


def overview(pool):
    """Return the number of tokens in every state, as a table."""
    counts = pool.counts()
    table = Table(title="The pool", title_justify="left")
    for state in counts:
        table.add_column(state, justify="right", style=STYLES.get(state, ""))
    table.add_row(*map(str, counts.values()))
    return table


# --- the sheet -------------------------------------------------------------------------------------------------------

COLUMNS, TILE, GAP, CAPTION, MARGIN, HEADER = 6, 340, 28, 58, 64, 130
BACKGROUND, BRIGHT, DIM = "#0b0e14", "#e6e9f0", "#7d8597"


def draw_sheet(tokens, pool):
    """Return one image of all tokens' images, with their parameters below."""
    tokens = sorted(tokens, key=lambda token: token.id)
    columns = min(COLUMNS, max(1, len(tokens)))
    rows = -(-len(tokens) // columns)
    width = max(720, 2 * MARGIN + columns * (TILE + GAP) - GAP)
    sheet = Image.new("RGB", (width, HEADER + 2 * MARGIN + rows * (TILE + CAPTION + GAP) - GAP), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    large, medium, small = (ImageFont.load_default(size) for size in (52, 23, 18))
    draw.text((MARGIN, MARGIN), f"{len(tokens)} tokens", BRIGHT, large)
    draw.text(
        (MARGIN, MARGIN + 68), "Julia sets along the edge of the Mandelbrot set, each drawn by one token", DIM, medium
    )
    for n, token in enumerate(tokens):
        left = MARGIN + n % columns * (TILE + GAP)
        top = MARGIN + HEADER + n // columns * (TILE + CAPTION + GAP)
        with Image.open(io.BytesIO(pool.attachment(token.id, IMAGE))) as image:
            sheet.paste(image.resize((TILE, TILE), Image.Resampling.LANCZOS), (left, top))
        draw.text((left, top + TILE + 8), token["name"], BRIGHT, medium)
        draw.text((left, top + TILE + 36), f"{token.id} · {seconds_of(token):.1f} s", DIM, small)
    return sheet


if __name__ == "__main__":
    main()
