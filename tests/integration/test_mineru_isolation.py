"""No document makes the server fetch anything or read a file beside or above itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
from docx import Document
from openpyxl import Workbook
from PIL import Image
from reportlab.pdfgen.canvas import Canvas

from docfleet.errors import DocfleetError
from tests.integration.test_mineru_formats import make_epub, rewritten
from tests.mineru_support import every_format, files_of, parse

SECRET = "the-secret-of-the-neighbour"


@dataclass
class Listener:
    url: str
    seen: list[str] = field(default_factory=list)


@pytest.fixture
def listener() -> Iterator[Listener]:
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(f"{self.command} {self.path}")
            self.send_response(200)
            self.end_headers()

        do_HEAD = do_POST = do_OPTIONS = do_PROPFIND = do_GET

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Listener(f"http://127.0.0.1:{server.server_port}", seen)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job's folder with secrets beside and above the document, text and pictures both."""
    folder = tmp_path / "jobs" / "a"
    folder.mkdir(parents=True)
    for place in (folder, folder.parent):
        (place / "secret.txt").write_text(SECRET)
        (place / "secret.css").write_text(f".x::before {{ content: '{SECRET}' }} p {{ display: none }}")
        Image.new("RGB", (64, 64), "purple").save(place / "secret.png")
    return folder


def images_made(output: Path) -> list[str]:
    return [name for name in files_of(output) if name.startswith("images/")]


def assert_nothing_leaked(source: Path, work: Path, listener: Listener) -> Path | None:
    try:
        _, output, _ = parse(source, work / "work", options=every_format())
    except DocfleetError as exc:
        assert SECRET not in exc.message
        output = None
    assert listener.seen == []
    if output is not None:
        for name, content in files_of(output).items():
            assert SECRET.encode() not in content, name
            assert SECRET.encode("utf-16-le") not in content, name
            if name.endswith(".docx"):
                with ZipFile(BytesIO(content)) as made:
                    assert all(SECRET.encode() not in made.read(part) for part in made.namelist())
    return output


def test_the_listener_notices_a_fetch(listener: Listener) -> None:
    from urllib.request import urlopen

    urlopen(f"{listener.url}/probe", timeout=5).close()
    assert listener.seen == ["GET /probe"]


def html_of(url: str, root: Path) -> str:
    above = root.parent
    return f"""<!DOCTYPE html><html><head><base href="./">
<link rel="stylesheet" href="{url}/a.css"><link rel="stylesheet" href="secret.css">
<link rel="stylesheet" href="file://{root}/secret.css"><style>@import url({url}/b.css); @import "secret.css";
body {{ background: url({url}/c.png) }}</style><script src="{url}/d.js"></script></head>
<body><h1>Harvest</h1><p>Visible paragraph of the orchard report, long enough to be kept as the text.</p>
<p>Second paragraph, with <a href="{url}/n">a link</a> that must stay one.</p>
<img src="{url}/e.png" srcset="{url}/f.png 2x"><img src="secret.png"><img src="../secret.png">
<img src="../../../../../../etc/passwd"><img src="file://{root}/secret.png"><img src="{above}/secret.png">
<img src="secret.txt"><iframe src="{url}/g"></iframe><iframe src="file://{root}/secret.txt"></iframe>
<object data="secret.txt"></object><embed src="{url}/h"><video poster="{url}/i.png" src="{url}/j.mp4"></video>
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="90" height="90">
<image xlink:href="{url}/k.png" width="9" height="9"/><image href="file://{root}/secret.png" width="9" height="9"/>
<use href="{url}/l.svg#x"/><rect width="80" height="80" fill="url({url}/m.svg#p)"/></svg></body></html>"""


def test_html_takes_in_nothing_from_the_network_or_the_disk(listener: Listener, job: Path, tmp_path: Path) -> None:
    source = job / "source.html"
    source.write_text(html_of(listener.url, job), encoding="utf-8")
    output = assert_nothing_leaked(source, tmp_path, listener)
    assert output is not None
    markdown = (output / "document.md").read_text(encoding="utf-8")
    assert "Visible paragraph" in markdown
    assert f"{listener.url}/n" in markdown
    # The one image of its own is the drawing; the purple neighbours are not among the files.
    for name in images_made(output):
        assert Image.open(output / name).convert("RGB").getpixel((5, 5)) != (128, 0, 128)


@pytest.mark.parametrize("base", ["file:///", "../", "//127.0.0.1/", "/"])
def test_no_base_href_opens_the_disk(base: str, listener: Listener, job: Path, tmp_path: Path) -> None:
    source = job / "source.html"
    text = "Visible paragraph of the orchard report, long enough to be kept as the text. " * 3
    source.write_text(
        f'<html><head><base href="{base}"><link rel="stylesheet" href="secret.css"></head>'
        f'<body><p>{text}</p><img src="secret.png"><img src="etc/passwd"></body></html>'
    )
    output = assert_nothing_leaked(source, tmp_path, listener)
    assert output is not None
    assert "Visible paragraph" in (output / "document.md").read_text(encoding="utf-8")
    assert images_made(output) == []


def test_mhtml_and_epub_take_in_nothing_either(listener: Listener, job: Path, tmp_path: Path) -> None:
    page = html_of(listener.url, job).replace("\n", "\r\n")
    (job / "source.mhtml").write_text(
        "From: <Saved>\r\nSnapshot-Content-Location: file://" + str(job) + "/page.html\r\nMIME-Version: 1.0\r\n"
        'Content-Type: multipart/related; type="text/html"; boundary="b"\r\n\r\n--b\r\nContent-Type: text/html\r\n'
        f"Content-Location: file://{job}/page.html\r\n\r\n{page}\r\n--b--\r\n"
    )
    output = assert_nothing_leaked(job / "source.mhtml", tmp_path, listener)
    assert output is not None
    body = (
        f'<p>Visible chapter.</p><img src="{listener.url}/a.png"/><img src="../secret.png"/>'
        f'<img src="file://{job}/secret.png"/><img src="{job}/secret.png"/>'
    )
    output = assert_nothing_leaked(make_epub(job / "source.epub", body), tmp_path, listener)
    assert output is not None
    assert "Visible chapter" in (output / "document.md").read_text(encoding="utf-8")
    assert images_made(output) == []


def docx_with_links(path: Path, url: str, root: Path) -> Path:
    Document().save(str(path))
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    targets = {
        "rx1": ("image", f"{url}/a.png"),
        "rx2": ("attachedTemplate", f"{url}/b.dotm"),
        "rx3": ("oleObject", f"file://{root}/secret.txt"),
        "rx4": ("image", f"file://{root}/secret.png"),
        "rx5": ("subDocument", f"{url}/c.docx"),
        "rx6": ("image", "../../../secret.png"),
    }
    links = "".join(
        f'<Relationship Id="{name}" Type="{kind}/{what}" Target="{target}" TargetMode="External"/>'
        for name, (what, target) in targets.items()
    )
    picture = (
        '<w:p><w:r><w:drawing><wp:inline xmlns:wp="http://schemas.openxmlformats.org/drawingml/2006/'
        'wordprocessingDrawing"><wp:extent cx="990000" cy="990000"/><wp:docPr id="{n}" name="p"/>'
        '<a:graphic xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"><a:graphicData '
        'uri="http://schemas.openxmlformats.org/drawingml/2006/picture"><pic:pic '
        'xmlns:pic="http://schemas.openxmlformats.org/drawingml/2006/picture"><pic:blipFill>'
        '<a:blip r:link="{rel}" xmlns:r="' + kind + '"/></pic:blipFill></pic:pic></a:graphicData></a:graphic>'
        "</wp:inline></w:drawing></w:r></w:p>"
    )
    shown = "<w:r><w:t>field</w:t></w:r></w:fldSimple>"
    field = (
        f'<w:p><w:fldSimple w:instr=" INCLUDEPICTURE &quot;{url}/d.png&quot; \\d ">{shown}'
        f'<w:fldSimple w:instr=" INCLUDETEXT &quot;{root}/secret.txt&quot; ">{shown}</w:p>'
    )
    body = "<w:p><w:r><w:t>Visible paragraph.</w:t></w:r></w:p>" + field
    body += "".join(picture.format(n=i, rel=rel) for i, rel in enumerate(("rx1", "rx4", "rx6"), start=1))
    linked = rewritten(
        path,
        "word/_rels/document.xml.rels",
        lambda data: data.replace(b"</Relationships>", links.encode() + b"</Relationships>"),
    )
    path.write_bytes(linked)
    path.write_bytes(
        rewritten(path, "word/document.xml", lambda data: data.replace(b"<w:body>", b"<w:body>" + body.encode()))
    )
    return path


def test_links_of_a_word_document_are_not_followed(listener: Listener, job: Path, tmp_path: Path) -> None:
    output = assert_nothing_leaked(docx_with_links(job / "source.docx", listener.url, job), tmp_path, listener)
    assert output is not None
    assert "Visible paragraph." in (output / "document.md").read_text(encoding="utf-8")
    assert images_made(output) == []


def test_entities_of_packaged_xml_are_not_resolved(listener: Listener, job: Path, tmp_path: Path) -> None:
    Document().save(str(job / "plain.docx"))
    book = Workbook()
    book.active.append(["orchard"])
    book.save(job / "plain.xlsx")
    entities = (
        f'<!DOCTYPE x [<!ENTITY near SYSTEM "file://{job}/secret.txt"><!ENTITY far SYSTEM "{listener.url}/x">'
        f'<!ENTITY % remote SYSTEM "{listener.url}/y.dtd"> %remote;]>'
    ).encode()

    def infected(data: bytes) -> bytes:
        head, _, rest = data.partition(b"?>")
        rest = rest.replace(b"<w:body>", b"<w:body><w:p><w:r><w:t>&near;&far;</w:t></w:r></w:p>")
        return head + b"?>" + entities + rest.replace(b"<t>orchard</t>", b"<t>&near;&far;</t>")

    for name, part in (("docx", "word/document.xml"), ("xlsx", "xl/sharedStrings.xml")):
        source = job / f"source.{name}"
        source.write_bytes(rewritten(job / f"plain.{name}", part, infected))
        assert_nothing_leaked(source, tmp_path, listener)


def test_actions_and_remote_files_of_a_pdf_are_not_followed(listener: Listener, job: Path, tmp_path: Path) -> None:
    import pikepdf

    canvas = Canvas(str(job / "source.pdf"))
    for line in range(12):
        canvas.drawString(72, 760 - 20 * line, f"Line {line} of a report on orchards that says a number of things.")
    canvas.linkURL(f"{listener.url}/link", (72, 700, 300, 720))
    canvas.save()
    with pikepdf.open(job / "source.pdf", allow_overwriting_input=True) as pdf:
        pdf.Root.OpenAction = pikepdf.Dictionary(S=pikepdf.Name.URI, URI=pikepdf.String(f"{listener.url}/open"))
        pdf.Root.AA = pikepdf.Dictionary(
            WC=pikepdf.Dictionary(S=pikepdf.Name.SubmitForm, F=pikepdf.String(f"{listener.url}/submit"))
        )
        pdf.save()
    output = assert_nothing_leaked(job / "source.pdf", tmp_path, listener)
    assert output is not None
    assert "report on orchards" in (output / "document.md").read_text(encoding="utf-8")


def test_an_entry_name_of_an_archive_never_becomes_a_path(listener: Listener, job: Path, tmp_path: Path) -> None:
    make_epub(job / "source.epub", '<p>Visible chapter.</p><img src="../../../out.png"/>')
    buffer = BytesIO()
    Image.new("RGB", (40, 40), "green").save(buffer, format="PNG")
    with ZipFile(job / "source.epub", "a", ZIP_DEFLATED) as book:
        book.writestr("../../../out.png", buffer.getvalue())
    before = {path for path in tmp_path.rglob("*") if "work" not in path.parts}
    assert_nothing_leaked(job / "source.epub", tmp_path, listener)
    assert {path for path in tmp_path.rglob("*") if "work" not in path.relative_to(tmp_path).parts} >= before
    assert not list(tmp_path.rglob("out.png"))
