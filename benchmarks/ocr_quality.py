"""Recognition without models: how much of a page's text comes back when only its pixels are given.

    python -m benchmarks.ocr_quality [DOCUMENT...] [--dpi 150 200] [--pages 5] [--skew 0] [--noise 0] [--threads 1]

Digital pages are drawn, packed into a PDF as JPEG, and read by the embedded engine at one thread. Their text is
compared with the page's own: words for Latin script, characters for Chinese, Japanese and Korean, as F1 of the two
bags (every occurrence counts). Two references: the PDF's text layer, which has what MinerU leaves out (running heads)
and parts words at line ends, and the Markdown that MinerU makes of the digital page. Without a document, pages of
Chinese and English text are made.
"""

from __future__ import annotations

import argparse
import html
import os
import re
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

os.environ.update(MINERU_MODEL_SOURCE="local", MINERU_LOG_LEVEL="error", MINERU_PDF_RENDER_THREADS="1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

#: Chinese, Japanese and Korean characters.
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_NARROW = {"（": "(", "）": ")", "，": ",", "：": ":", "；": ";", "！": "!", "？": "?"}


#: F1 against the text layer and against MinerU's Markdown, processor seconds.
Row = tuple[float, float, float]


@dataclass(frozen=True)
class Page:
    """A digital page."""

    document: Path
    number: int


def main() -> None:
    """Print one row a page and resolution, and means."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        house = Path(folder)
        documents = [Path(name) for name in arguments.documents] or _made(house)
        engine = _engine(arguments.threads, house)
        print(f"{'document':<24} {'page':>4} {'dpi':>4} {'unit':<5} {'F1 layer':>8} {'F1 mineru':>9} {'s/page':>7}")
        for document in documents:
            for dpi in arguments.dpi:
                rows = [_row(engine, page, dpi, arguments, house) for page in _pages(document, arguments.pages)]
                _print_means(document, dpi, rows)


def _row(
    engine: object, page: Page, dpi: int, arguments: argparse.Namespace, house: Path
) -> tuple[float, float, float]:
    layer, digital = _layer_text(page), _markdown_of(page, house)
    scan = house / "scan.pdf"
    _scan(page, dpi, arguments.skew, arguments.noise).save(scan, resolution=dpi, quality=85)
    text, seconds = _recognised(engine, scan, house)
    unit = "char" if len(_WIDE.findall(layer)) > 0.3 * len(re.findall(r"\w", layer)) else "word"
    scores = f1(_units(text, unit), _units(layer, unit)), f1(_units(text, unit), _units(digital, unit))
    print(
        f"{page.document.name:<24.24} {page.number + 1:>4} {dpi:>4} {unit:<5} "
        f"{scores[0]:>8.3f} {scores[1]:>9.3f} {seconds:>7.2f}",
        flush=True,
    )
    return (*scores, seconds)


def f1(one: list[str], two: list[str]) -> float:
    """Return the F1 of two bags."""
    common = sum((Counter(one) & Counter(two)).values())
    return 2 * common / max(1, len(one) + len(two))


def _units(text: str, unit: str) -> list[str]:
    if unit == "word":
        return re.findall(r"\w+", text.lower())
    return re.findall(r"\S", "".join(_NARROW.get(char, char) for char in text))


def _plain(markdown: str) -> str:
    # What MinerU says of a picture's labels belongs to no text.
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)|<details>.*?</details>", " ", markdown, flags=re.DOTALL)
    text = re.sub(r"</?su[bp]>", "", text)
    text = html.unescape(re.sub(r"<[^>]+>", " ", text))
    return re.sub(r"^#+ |[\\*$]", "", text, flags=re.MULTILINE)


def _layer_text(page: Page) -> str:
    import pypdfium2

    with pypdfium2.PdfDocument(page.document) as pdf:
        text = pdf[page.number].get_textpage().get_text_range()
    return re.sub(r"[\ufffe\u00ad\u0002-]\r?\n", "", text)


def _markdown_of(page: Page, house: Path) -> str:
    from docfleet.engine.mineru.documents import read_pdf_flash, write_outputs
    from docfleet.options import ParseOptions

    output = Path(tempfile.mkdtemp(dir=house))
    document = read_pdf_flash(page.document, page_range=(page.number, page.number))
    write_outputs(document.middle, document.model, ParseOptions(), output, "page")
    return _plain((output / "document.md").read_text(encoding="utf-8"))


def _scan(page: Page, dpi: int, skew: float, noise: float):  # type: ignore[no-untyped-def]
    import numpy as np
    import pypdfium2
    from PIL import Image

    with pypdfium2.PdfDocument(page.document) as pdf:
        image = pdf[page.number].render(scale=dpi / 72, grayscale=True).to_pil()
    if skew:
        image = image.rotate(skew, resample=Image.Resampling.BICUBIC, expand=False, fillcolor=255)
    if noise:
        grain = np.random.default_rng(1).normal(0, noise, (image.height, image.width))
        image = Image.fromarray(np.clip(np.asarray(image) * 0.9 + grain, 0, 255).astype(np.uint8))
    return image


def _engine(threads: int, house: Path) -> object:
    from docfleet.engine.embedded import EmbeddedEngine
    from docfleet.engine.interface import EngineContext

    engine = EmbeddedEngine()
    engine.load(
        EngineContext(device="cpu", threads=threads, model_source="embedded", vlm_server_url=None, scratch=house)
    )
    return engine


def _recognised(engine: object, scan: Path, house: Path) -> tuple[str, float]:
    """Return the text of a one-page scan, and the processor seconds of its page stage."""
    from docfleet.engine.interface import ParseRequest
    from docfleet.options import ParseOptions, Tier

    request = ParseRequest(
        source=scan, suffix="pdf", filename="scan.pdf", pages=1, first_page=0, last_page=0, options=ParseOptions()
    )
    folder = Path(tempfile.mkdtemp(dir=house))
    (folder / "part").mkdir()
    (folder / "result").mkdir()
    started = time.process_time()
    engine.read_pages(request, Tier.FLASH, folder / "part", lambda pages: None)  # type: ignore[attr-defined]
    seconds = time.process_time() - started
    engine.finish(request, Tier.FLASH, [folder / "part"], folder / "result", lambda pages: None)  # type: ignore[attr-defined]
    return _plain((folder / "result" / "document.md").read_text(encoding="utf-8")), seconds


def _pages(document: Path, most: int) -> list[Page]:
    from docfleet.documents.pdf import page_count

    count = page_count(document)
    most = min(most, count)
    return [Page(document, round(index * (count - 1) / max(1, most - 1))) for index in range(most)]


def _made(house: Path) -> list[Path]:
    from tests.making import chinese_pdf, english_pdf

    return [english_pdf(house / "english.pdf"), chinese_pdf(house / "chinese.pdf")]


def _print_means(document: Path, dpi: int, rows: list[Row]) -> None:
    layer, mineru, seconds = (statistics.mean(column) for column in zip(*rows, strict=True))
    print(f"{document.name:<24.24} {'mean':>4} {dpi:>4} {'':<5} {layer:>8.3f} {mineru:>9.3f} {seconds:>7.2f}\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", nargs="*", help="PDFs with text of their own")
    parser.add_argument("--dpi", nargs="+", type=int, default=[150, 200])
    parser.add_argument("--pages", type=int, default=5, help="pages of each document, spread over it")
    parser.add_argument("--skew", type=float, default=0.0, help="degrees by which the scan leans")
    parser.add_argument("--noise", type=float, default=0.0, help="grain of the scan, standard deviation of 255")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
