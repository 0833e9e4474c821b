"""The CSV file of orders: pure functions, without the database."""

import csv
from dataclasses import dataclass

from django import forms
from django.core.exceptions import ValidationError

#: The columns, and what each must hold. Form fields validate and convert.
COLUMNS = {
    "number": forms.CharField(max_length=20),
    "email": forms.EmailField(),
    "product": forms.CharField(max_length=60),
    "quantity": forms.IntegerField(min_value=1, max_value=1000),
    "price": forms.DecimalField(min_value=0, max_digits=8, decimal_places=2),
    "ordered_on": forms.DateField(input_formats=["%Y-%m-%d"]),
}


@dataclass(slots=True)
class Row:
    """
    A line by its number in the file.

    values if all is well, else problems: a list of (column, text, what is wrong).
    """

    number: int
    values: dict
    problems: list


def read_rows(file, start=0, stop=None):
    """
    Yield a Row for each line of a text file below the column names, which are line 1.

    Only for those from the index start on, and before stop. What can't be read
    as CSV ends in a Row with a problem, like any mistake of the visitor's: it
    is no failure of the program.
    """
    first_row_of = {}
    for index, (line, cells, problems) in enumerate(_records(file)):
        if index == stop:
            return
        text = (cells.get("number") or "").strip()
        first = first_row_of.setdefault(text, line) if text else line
        if index < start:
            continue
        row = Row(line, {}, problems) if problems else Row(line, *check(cells))
        if first != line:
            row.problems.append(("number", shown(text), f"Row {first} has this number, too."))
        yield row


def count_rows(file):
    """Return how many Rows read_rows() yields."""
    return sum(1 for _ in _records(file))


def _records(file):
    """Yield the number of a line, its cells, and what keeps it from being read."""
    reader = csv.DictReader(file, strict=True)
    try:
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            yield 1, {}, [(name, "", "This column is missing.") for name in missing]
            return
        for cells in reader:
            yield reader.line_num, cells, []
    except UnicodeDecodeError:
        yield reader.line_num + 1, {}, [("", "", "From about here on, this is not UTF-8.")]
    except csv.Error as error:
        yield reader.line_num + 1, {}, [("", "", f"From here on, this is not CSV: {error}.")]


def check(cells):
    """Return the values of a row by column, and a list of problems."""
    values, problems = {}, []
    if None in cells:
        problems.append(("", shown(",".join(cells[None])), "There are more cells than columns."))
    for name, field in COLUMNS.items():
        text = cells[name] or ""
        try:
            values[name] = field.clean(text)
        except ValidationError as error:
            problems.append((name, shown(text), " ".join(error.messages)))
    return values, problems


def shown(text):
    """Return text as it may be stored beside a problem."""
    return text[:80].replace("\0", "\N{REPLACEMENT CHARACTER}")


def sample(rows, bad=0):
    """Yield the lines of a file for trying out; bad of its rows have one mistake each."""
    mistakes = (
        {"email": "nobody"},
        {"quantity": "0"},
        {"price": "cheap"},
        {"ordered_on": "2026-02-30"},
        {"product": ""},
    )
    products = ("Tea", "Coffee", "Cocoa", "Honey", "Rusk", "Jam", "Oats", "Rice")
    yield ",".join(COLUMNS) + "\r\n"
    every = rows // bad if bad else rows + 1
    for i in range(rows):
        cells = {
            "number": f"A{i:06}",
            "email": f"customer{i % 997}@example.com",
            "product": products[i % len(products)],
            "quantity": str(1 + i % 9),
            "price": f"{2 + i % 40}.{i % 100:02}",
            "ordered_on": f"2026-{1 + i % 12:02}-{1 + i % 28:02}",
        }
        nth, is_bad = divmod(i, every)
        if is_bad == 0 and nth < bad:
            cells |= mistakes[nth % len(mistakes)]
        yield ",".join(cells.values()) + "\r\n"
