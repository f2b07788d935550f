"""The request forms of `/predict` and `/jobs` in the API description, with examples that work as they stand."""

from __future__ import annotations

import base64
from typing import Any

from pydantic import BaseModel, Field

from docfleet.options import Format, ParseOptions
from docfleet.records import Lane


class DocumentOptions(ParseOptions):
    """What a caller may ask for a document: how to parse it, and who goes first."""

    lane: Lane | None = Field(
        None, description="interactive goes first, batch never starves; by default interactive at /predict, else batch"
    )


class OneDocument(BaseModel):
    """A document as JSON; a bare `file` is enough."""

    file: str = Field(description="the document's bytes in base64", json_schema_extra={"contentEncoding": "base64"})
    filename: str | None = Field(None, description="name for titles and messages; the type is told by the content")
    options: DocumentOptions | None = None


class SeveralDocuments(BaseModel):
    """Several documents as JSON, each with options of its own."""

    files: list[OneDocument] = Field(min_length=1)


def predict_request() -> dict[str, Any]:
    """Return what the API description says of the body of `/predict`."""
    document = base64.b64encode(sample_pdf()).decode()
    one = {"file": document, "filename": "hello.pdf", "options": {"formats": ["markdown", "html"]}}
    several = {"files": [{"file": document, "filename": name} for name in ("first.pdf", "second.pdf")]}
    multipart = {
        "type": "object",
        "properties": {
            "files": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}},
            **_options_as_text(),
        },
        "required": ["files"],
    }
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "anyOf": [inlined(form.model_json_schema()) for form in (OneDocument, SeveralDocuments)]
                    },
                    "examples": {
                        "bare": {"summary": "nothing but the file", "value": {"file": document}},
                        "one": {"summary": "one document with options", "value": one},
                        "several": {"summary": "several documents", "value": several},
                    },
                },
                "multipart/form-data": {"schema": multipart},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        },
        "parameters": _query_parameters(),
    }


def sample_pdf() -> bytes:
    """Return a PDF of one page that says hello."""
    text = b"BT /F1 24 Tf 72 700 Td (Hello, Docfleet) Tj ET"
    objects = (
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%b\nendstream" % (len(text), text),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    )
    body = b"%PDF-1.4\n"
    places = []
    for number, content in enumerate(objects, 1):
        places.append(len(body))
        body += b"%d 0 obj%b\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    tail = b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(body))
    return body + head + table + tail


def inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a model's schema with its definitions put in place: the description has no room for them elsewhere."""
    definitions = schema.get("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, list):
            return [resolve(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            target = resolve(definitions[node["$ref"].rpartition("/")[2]])
            return {**target, **{key: resolve(value) for key, value in node.items() if key != "$ref"}}
        return {key: resolve(value) for key, value in node.items() if key != "$defs"}

    inline: dict[str, Any] = resolve(schema)
    return inline


def _options_as_text() -> dict[str, Any]:
    """Return the options as they are in forms and queries: nothing is null there, it is left out."""
    properties: dict[str, Any] = inlined(DocumentOptions.model_json_schema())["properties"]
    for name, schema in properties.items():
        for choice in schema.pop("anyOf", ()):
            if choice["type"] != "null":
                schema.update(choice)
        if name == "formats":
            # A list has many spellings in forms and queries; commas work in both.
            schema.pop("items")
            schema |= {"type": "string", "description": f"comma-separated: {', '.join(Format)}"}
        schema.pop("title", None)
        schema.pop("default", None)
    return properties


def _query_parameters() -> list[dict[str, Any]]:
    name = {"type": "string", "description": "name of the document", "examples": ["report.pdf"]}
    return [
        {
            "name": key,
            "in": "query",
            "required": False,
            "description": f"{schema.pop('description')}; what the body says wins",
            "schema": schema,
        }
        for key, schema in {"filename": name, **_options_as_text()}.items()
    ]
