"""The documentation site: what mkdocs has to be told beyond mkdocs.yml.

The pages read well in the repository and on the site. So README.md and CHANGELOG.md, which lie outside
docs/, become pages of it; and a file of the repository that some page links to comes along as a page with
its text, so that no link leaves the site and none depends on where the repository is served. Not here: what
the pages say.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parents[1]
OWN: Final = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}  # pages that lie outside docs/
LINK: Final = re.compile(r"(\]\()([^)\s]+)(\))")
FENCE: Final = re.compile(r"^(```+|~~~+).*?^\1[^\S\n]*$", re.MULTILINE | re.DOTALL)
_LANGUAGES: Final = {
    ".py": "python",
    ".pyx": "cython",
    ".sql": "sql",
    ".yml": "yaml",
    ".yaml": "yaml",
    ".toml": "toml",
    ".json": "json",
    ".sh": "bash",
    ".service": "ini",
    ".conf": "ini",
    ".env": "bash",
}
_ELSEWHERE: Final = re.compile(r'<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="((?:https?:)?//[^"]+)"')
_SHOWN_BYTES: Final = 256 * 1024
_HIDDEN: Final = "---\nsearch:\n  exclude: true\n---\n\n"


def slug(heading: str, separator: str = "-") -> str:
    """A heading's anchor, as GitHub makes it."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", separator)


def is_local(target: str) -> bool:
    """Whether a link is to a file or a heading, and not to another site."""
    return re.match(r"[a-z][a-z0-9+.-]*:|//", target) is None


def outside_code(markdown: str) -> list[tuple[str, bool]]:
    """The text in pieces, each with whether it is text (and not a fenced block)."""
    pieces, end = [], 0
    for block in FENCE.finditer(markdown):
        pieces += [(markdown[end : block.start()], True), (block[0], False)]
        end = block.end()
    return [*pieces, (markdown[end:], True)]


def targets(markdown: str) -> list[str]:
    """Every local link and image, as written."""
    return [
        link[2]
        for piece, is_text in outside_code(markdown)
        if is_text
        for link in LINK.finditer(piece)
        if is_local(link[2])
    ]


def source_of(src_uri: str) -> str:
    """Where a page lies in the repository."""
    return next((name for name, page in OWN.items() if page == src_uri), f"docs/{src_uri}")


def page_of(path: str) -> str:
    """Where a file of the repository is among the site's sources."""
    if path in OWN:
        return OWN[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if (ROOT / path).is_dir():
        return f"repository/{path}/index.md" if path not in ("", ".") else "repository/index.md"
    return f"repository/{path}.md" if _is_text(path) else f"repository/{path}"


def _is_text(path: str) -> bool:
    file = ROOT / path
    return file.suffix in _LANGUAGES or (
        file.stat().st_size < _SHOWN_BYTES and b"\0" not in file.read_bytes()
    )


def _linked(page: str, target: str) -> str:
    """The file of the repository that a link of a page means. Raises FileNotFoundError."""
    path = os.path.normpath(PurePosixPath(page).parent / target)
    if path.startswith("..") or not (ROOT / path).exists():
        raise FileNotFoundError(f"{page}: the link {target} leads nowhere")
    return path


def rewritten(markdown: str, page: str) -> str:
    """The text with its links as the site has them; ``page``: where it lies in the repository."""
    here = PurePosixPath(page_of(page)).parent

    def replaced(link: re.Match[str]) -> str:
        path, hash_, anchor = link[2].partition("#")
        if not is_local(link[2]) or not path:
            return link[0]
        try:
            to = page_of(_linked(page, path))
        except FileNotFoundError:
            return link[0]  # mkdocs says it
        return f"{link[1]}{os.path.relpath(to, here)}{hash_}{anchor}{link[3]}"

    return "".join(
        LINK.sub(replaced, piece) if is_text else piece for piece, is_text in outside_code(markdown)
    )


def _within(path: str) -> list[str]:
    """The files of text in a directory of the repository."""
    found = sorted(str(file.relative_to(ROOT)) for file in (ROOT / path).rglob("*") if file.is_file())
    return [one for one in found if not re.search(r"(^|/)[._]", one) and _is_text(one)]


def _made(path: str) -> str | None:
    """The page of a file or a directory of the repository; None for what is no text."""
    file = ROOT / path
    if file.is_dir():
        here = PurePosixPath(page_of(path)).parent
        listed = "".join(
            f"- [{PurePosixPath(one).relative_to(path)}]({os.path.relpath(page_of(one), here)})\n"
            for one in _within(path)
        )
        return f"{_HIDDEN}# {path}\n\nA directory of the repository:\n\n{listed}"
    if not _is_text(path):
        return None
    text = file.read_text("utf-8")
    if file.suffix == ".md":
        return _HIDDEN + rewritten(text, path)
    fence = "`" * (max(map(len, re.findall("`+", text)), default=2) + 1) if "```" in text else "```"
    return f"{_HIDDEN}# {path}\n\n{fence}{_LANGUAGES.get(file.suffix, 'text')}\n{text.rstrip()}\n{fence}\n"


# --- called by mkdocs -----------------------------------------------------------------------------------


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Anchors as in the repository."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slug
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages that lie outside docs/, and the files that pages link to."""
    for name, page in OWN.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text("utf-8")))
    wanted: dict[str, None] = {}
    for file in files.documentation_pages():
        page = source_of(file.src_uri)
        for target in targets(file.content_string):
            path = target.partition("#")[0]
            try:
                linked = _linked(page, path) if path else page
            except FileNotFoundError:
                continue  # mkdocs says it
            if not linked.startswith("docs/") and linked not in OWN:
                wanted[linked] = None
                if (ROOT / linked).is_dir():
                    wanted.update(dict.fromkeys(_within(linked)))
    for path in wanted:
        text = _made(path)
        if text is not None:
            files.append(File.generated(config, page_of(path), content=text))
        else:
            files.append(File.generated(config, page_of(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:  # noqa: ANN401 - mkdocs gives more
    """Links as the site has them."""
    if page.file.src_uri.startswith("repository/"):
        return markdown
    return rewritten(markdown, source_of(page.file.src_uri))


def on_post_page(output: str, page: Page, **_: Any) -> str:  # noqa: ANN401
    """Nothing that a page needs comes from elsewhere."""
    if found := _ELSEWHERE.search(output):
        raise PluginError(f"{page.file.src_uri}: the page would load {found[1]}")
    return output
