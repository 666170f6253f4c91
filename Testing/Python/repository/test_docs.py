"""The pages of the reference say what the program does: commands, columns, exit codes; the site's list of pages is complete."""

import re
import runpy
import shlex
import unittest
from collections.abc import Iterator
from pathlib import Path

import typer

from nlstseg_training.cli import make_app as make_training_app
from NLSTSegLib.cli.app import make_app
from NLSTSegLib.cohort.report import COLUMNS as COHORT_COLUMNS
from NLSTSegLib.errors import OWNER_GONE, STOPPED, UNEXPECTED, InputError, ModelError, PacsError
from NLSTSegLib.followup.table import COLUMNS as PAIR_COLUMNS
from NLSTSegLib.lesions.rows import COLUMNS as RESULT_COLUMNS
from NLSTSegLib.phantom.folder import COLUMNS as PHANTOM_COLUMNS
from NLSTSegLib.review.folder import AUDIT_COLUMNS, TABLE_COLUMNS

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"


def tables_of(page: Path) -> list[list[str]]:
    """The names in the first column of every table of a page that begins with ``column`` or ``code``."""
    found = []
    for table in re.findall(r"(?m)^\| (?:column|code) \|.*\n\|[-|]+\n((?:\|.*\n?)+)", page.read_text(encoding="utf-8")):
        found.append([row.split("|")[1].strip().strip("`") for row in table.splitlines()])
    return found


def commands_in(page: Path) -> Iterator[list[str]]:
    """The words of every command of this program that stands in a block of code, but for forms with [options]."""
    for block in re.findall(r"(?ms)^ *```[a-z]*\n(.*?)^ *```", page.read_text(encoding="utf-8")):
        for line in re.findall(r"(?m)^ *(nlstseg(?:-train)? [^\[\n]+)$", block):
            yield shlex.split(line, comments=True)


class TestCommands(unittest.TestCase):
    def test_every_command_in_the_docs_is_one_that_the_program_takes(self):
        programs = {"nlstseg": make_app(), "nlstseg-train": make_training_app()}
        count = 0
        for page in (ROOT / "README.md", *DOCS.rglob("*.md")):
            for program, *words in commands_in(page):
                with self.subTest(page=page.name, command=" ".join([program, *words])):
                    self.parse(typer.main.get_command(programs[program]), words)
                    count += 1
        self.assertGreater(count, 50)

    def parse(self, command, words):
        """As the program does before it runs the command; that files of an example are not there is no fault."""
        context = command.make_context(command.name, list(words))
        while hasattr(command, "resolve_command"):
            _, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
            try:
                context = command.make_context(command.name, list(words), parent=context)
            except Exception as error:
                if "does not exist" in str(error):
                    return
                raise


class TestReference(unittest.TestCase):
    def test_command_line_is_that_of_the_commands(self):
        made = runpy.run_path(str(DOCS / "tools" / "command_line.py"))["page"]()
        there = (DOCS / "reference" / "command-line.md").read_text(encoding="utf-8")
        self.assertEqual(there, made, "run: python docs/tools/command_line.py")

    def test_every_column_of_every_table_is_described(self):
        tables = tables_of(DOCS / "reference" / "files.md")
        for columns in (RESULT_COLUMNS, COHORT_COLUMNS, TABLE_COLUMNS, AUDIT_COLUMNS, PHANTOM_COLUMNS, PAIR_COLUMNS):
            self.assertIn(list(columns), tables)

    def test_exit_codes_are_those_of_the_program(self):
        (codes,) = tables_of(DOCS / "reference" / "exit-codes.md")
        known = [0, UNEXPECTED, InputError.exit_code, ModelError.exit_code, PacsError.exit_code, STOPPED, OWNER_GONE]
        self.assertEqual([int(code) for code in codes], known)

    def test_readme_is_short_and_begins_with_the_picture(self):
        lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
        self.assertLess(len(lines), 120)
        self.assertTrue(any(line.startswith("![") for line in lines[:10]))


class TestSite(unittest.TestCase):
    def test_every_page_is_in_the_navigation_and_every_entry_a_page(self):
        listed = re.findall(r"(?m)^ +- .*?([\w/.-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
        pages = [page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")]
        self.assertEqual(sorted(listed), sorted(pages))


if __name__ == "__main__":
    unittest.main()
