"""An index of notes: ordinary files through `pathlib`, in the two directories that were granted."""

import json
import logging
import re
from collections import defaultdict
from pathlib import Path

from capwasm_guest import Failure, log, plugin
from wit_world.exports.index import Problem_CannotWrite, Problem_NoSuchDirectory, Summary

NOTES, INDEX = Path("/notes"), Path("/index")
WORD = re.compile(r"\w{2,}")

logging.basicConfig(handlers=[log.Handler()], level="INFO", format="%(message)s")
logger = logging.getLogger("notes-index")


@plugin
class NotesIndex:
    def build(self) -> Summary:
        words: dict[str, set[str]] = defaultdict(set)
        titles: dict[str, str] = {}
        skipped: list[str] = []
        if not NOTES.is_dir():
            raise Failure(Problem_NoSuchDirectory(str(NOTES)))
        for path in sorted(NOTES.rglob("*.md")):
            name = path.relative_to(NOTES).as_posix()
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                skipped.append(name)
                continue
            titles[name] = next((line.lstrip("# ") for line in text.splitlines() if line), name)
            for word in WORD.findall(text.lower()):
                words[word].add(name)
        index = {word: sorted(names) for word, names in sorted(words.items())}
        table = "\n".join(f"- [{title}]({name})" for name, title in titles.items())
        try:
            (INDEX / "words.json").write_text(json.dumps(index), encoding="utf-8")
            (INDEX / "notes.md").write_text(f"# Notes\n\n{table}\n", encoding="utf-8")
        except OSError as exc:
            raise Failure(Problem_CannotWrite(exc.strerror or "unknown")) from exc
        logger.info("indexed %d notes", len(titles))
        return Summary(notes=len(titles), words=len(index), skipped=skipped)

    def search(self, word: str) -> list[str]:
        index = json.loads((INDEX / "words.json").read_text(encoding="utf-8"))
        return index.get(word.lower(), [])
