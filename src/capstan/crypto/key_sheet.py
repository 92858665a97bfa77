"""The sheet of an export, for paper and a safe: which keys it holds, how they are used, and the sealed file itself, in
letters and as QR codes. As plain text, or as a PDF; English and Chinese. No font and nothing else is fetched: the
Chinese one (STSong-Light) is that of the PDF viewer, and all that is needed to open the file is in Latin letters too.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from capstan.crypto.key_export import Export
from capstan.crypto.keystore import KeyKind

_LINES_OF_A_CODE = 8  # lines of 64 letters, and so a code that any telephone reads at 78 mm


class _Part(NamedTuple):
    """A part of the sheet, in both languages; the `commands` are the same in both."""

    title: tuple[str, str]
    text: tuple[str, str]
    commands: str = ""


_TITLE = ("Capstan: exported keys", "Capstan：导出的密钥")
_WHAT = _Part(
    ("What this is", "这是什么"),
    (
        "Secret keys of backups on tape, sealed by a passphrase. Whoever has this sheet and the passphrase can read all"
        " backups that were sealed for these keys; without the keys nobody can, and they cannot be made again. Keep the"
        " sheet where neither the tapes nor the backup server are, and the passphrase somewhere else.",
        "磁带备份的私钥，由口令加密封存。持有本页和口令的人可以读取为这些密钥加密的全部备份；没有密钥，任何人都无法读取，"
        "密钥也无法重新生成。请将本页与磁带、备份服务器分开保存，口令另存他处。",
    ),
)
_PASSPHRASE = _Part(
    ("Passphrase", "口令"),
    (
        "Write here, by hand, where the passphrase is kept (or the passphrase, if this sheet lies in a safe):",
        "请在此手写口令的保存地点（如本页存放在保险柜中，也可写口令本身）：",
    ),
    "_" * 64,
)
_FILE = _Part(
    ("How to get the file", "如何得到文件"),
    (
        "Make a text file keys.age. Either scan the QR codes of the paper in the order of their numbers, each beginning"
        " on a new line; or copy the sealed file, from the line BEGIN to the line END. When it is right, this command"
        " shows the digest that stands below it:",
        "新建文本文件 keys.age：按编号顺序扫描纸页上的各二维码，每个二维码的内容另起一行；或者从 BEGIN 行到 END 行照抄"
        "下面的密封文件。若内容无误，以下命令显示的摘要与文件下方的摘要一致：",
    ),
    "sha256sum keys.age",
)
_WITHOUT = _Part(
    ("Without Capstan", "不用 Capstan"),
    (
        "Any Linux with the program age (age-encryption.org; package: age) opens the file. It asks for the passphrase."
        " RESTORE.txt on each tape says how keys.txt opens a backup. Lines “# drive-key:” are AES-256 keys for drives,"
        " in hexadecimal.",
        "任何装有 age 程序（age-encryption.org，软件包名：age）的 Linux 均可打开该文件，届时会询问口令。每盘磁带上的"
        " RESTORE.txt 说明如何用 keys.txt 打开备份。“# drive-key:” 行是磁带机的 AES-256 密钥（十六进制）。",
    ),
    "age -d keys.age > keys.txt\nage -d -i keys.txt < SEGMENT > …",
)
_WITH = _Part(
    ("With Capstan", "使用 Capstan"),
    (
        "The first line takes the keys into a new home; the second uses the file as it is; the third proves, any day,"
        " that this sheet is still good.",
        "第一行将密钥导入新的主目录；第二行直接使用该文件；第三行可随时验证本页仍然有效。",
    ),
    "capstan key import keys.age\ncapstan restore … --identity keys.age\ncapstan key drill --identity keys.age",
)
_KEYS = _Part(("The keys", "密钥清单"), ("", ""))
_SEALED = _Part(("The sealed file", "密封文件"), ("", ""))
_CODES = _Part(("The same as QR codes", "二维码（内容与密封文件相同）"), ("", ""))


def code_texts(export: Export) -> list[str]:
    """What the QR codes hold, in their order: joined by newlines, and with one at the end, it is the sealed file."""
    lines = export.armored.splitlines()
    return ["\n".join(lines[at : at + _LINES_OF_A_CODE]) for at in range(0, len(lines), _LINES_OF_A_CODE)]


def as_text(export: Export) -> str:
    """The sheet in plain text, without the codes. `identity_files` reads it as it is."""
    made = f"{export.made_at:%Y-%m-%d %H:%M} UTC"
    parts = [f"{_TITLE[0]} · {_TITLE[1]}\n{made}"]
    for part, commands in _parts(export):
        title = f"{part.title[0]} · {part.title[1]}"
        parts.append("\n".join(("", f"== {title} ==", *filter(None, part.text))))
        if commands:
            parts.append("\n".join(f"    {line}" for line in commands.splitlines()))
    return "\n".join([*parts, export.armored, _digest(export), ""])


def as_pdf(export: Export) -> bytes:
    """The sheet as a PDF of A4 pages."""
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.units import mm
    from reportlab.platypus import SimpleDocTemplate

    written = io.BytesIO()
    edge = 18 * mm
    document = SimpleDocTemplate(
        written, pagesize=A4, leftMargin=edge, rightMargin=edge, topMargin=edge, bottomMargin=edge, title=_TITLE[0]
    )
    number = f"{_TITLE[0]} · {export.made_at:%Y-%m-%d} · {_digest(export)[-8:]}"

    def foot(canvas: Any, _: Any) -> None:
        canvas.setFont("Helvetica", 8)
        canvas.drawString(edge, 10 * mm, f"{number} · page {canvas.getPageNumber()}")

    document.build(list(_flowables(export)), onFirstPage=foot, onLaterPages=foot)
    return written.getvalue()


def _parts(export: Export) -> list[tuple[_Part, str]]:
    """All but the sealed file and its codes, with what stands below each in a fixed width."""
    return [
        (_WHAT, ""),
        (_KEYS, _facts(export)),
        *((part, part.commands) for part in (_PASSPHRASE, _FILE, _WITHOUT, _WITH)),
        (_SEALED, ""),
    ]


def _facts(export: Export) -> str:
    blocks = []
    for key in export.keys:
        what = key.recipient if key.kind is KeyKind.AGE else "AES-256 key of a drive"
        blocks.append(f"{key.name}\n  id {key.id}  {key.created_at:%Y-%m-%d}  {key.state.value}\n  {what}")
    return "\n".join(blocks)


def _digest(export: Export) -> str:
    return f"SHA-256 {sha256(export.armored.encode()).hexdigest()}"


def _flowables(export: Export) -> Iterator[Any]:
    from reportlab.lib.styles import ParagraphStyle
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont
    from reportlab.pdfbase.pdfmetrics import registerFont
    from reportlab.platypus import KeepTogether, PageBreak, Paragraph, Preformatted

    registerFont(UnicodeCIDFont("STSong-Light"))
    english = ParagraphStyle("english", fontName="Helvetica", fontSize=9.5, leading=12.5, spaceAfter=2)
    chinese = ParagraphStyle("chinese", fontName="STSong-Light", fontSize=9.5, leading=13.5, wordWrap="CJK")
    title = ParagraphStyle("title", fontName="STSong-Light", fontSize=12, leading=17, spaceBefore=7, spaceAfter=2)
    fixed = ParagraphStyle("fixed", fontName="Courier", fontSize=9.5, leading=12, spaceBefore=3)

    def heading(words: tuple[str, str], size: int) -> Paragraph:
        latin = f'<font name="Helvetica-Bold">{escape(words[0])}</font>'
        return Paragraph(f'<font size="{size}">{latin}  {escape(words[1])}</font>', title)

    yield heading(_TITLE, 16)
    yield Paragraph(f"{export.made_at:%Y-%m-%d %H:%M} UTC", english)
    for part, commands in _parts(export):
        if part is _SEALED:
            yield PageBreak()
        text = [Paragraph(escape(words), style) for words, style in zip(part.text, (english, chinese), strict=True)]
        yield KeepTogether([heading(part.title, 12), *text, *([Preformatted(commands, fixed)] if commands else [])])
    yield Preformatted(export.armored.rstrip(), fixed)
    yield Preformatted(_digest(export), fixed)
    yield heading(_CODES.title, 12)
    yield _codes(export, english)


def _codes(export: Export, style: Any) -> Any:
    """The codes, two in a row, each over its number."""
    from reportlab.graphics.barcode.qr import QrCode
    from reportlab.lib.units import mm
    from reportlab.platypus import Paragraph, Table

    texts = code_texts(export)
    cells = [
        [QrCode(text, qrLevel="M", width=78 * mm, height=78 * mm), Paragraph(f"{number} / {len(texts)}", style)]
        for number, text in enumerate(texts, 1)
    ]
    return Table([cells[at : at + 2] + [""] * (at + 2 - len(cells)) for at in range(0, len(cells), 2)])
