"""The CSV file of orders: pure functions, no database."""

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
    """values if all is well, else problems: a list of (column, text, what is wrong)."""

    number: int
    values: dict
    problems: list


def read_rows(file):
    """
    Yield a Row for each line of a text file; the line of column names is row 1.

    What can't be read as CSV ends in a Row with a problem, like any mistake of
    the visitor's: it is no failure of the program.
    """
    reader = csv.DictReader(file, strict=True)
    seen = {}
    number = 1
    try:
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            yield Row(1, {}, [(name, "", "This column is missing.") for name in missing])
            return
        for number, cells in enumerate(reader, start=2):
            values, problems = check(cells)
            first = seen.setdefault(values.get("number"), number)
            if first != number and "number" in values:
                problems.append(("number", values["number"], f"Row {first} has this number, too."))
            yield Row(number, values, problems)
    except UnicodeDecodeError:
        yield Row(number + 1, {}, [("", "", "The file is not UTF-8 text from here on.")])
    except csv.Error as error:
        yield Row(number + 1, {}, [("", "", f"This is not CSV: {error}.")])


def check(cells):
    """Return the values of a row by column, and a list of problems."""
    values, problems = {}, []
    for name, field in COLUMNS.items():
        text = cells[name] or ""
        try:
            values[name] = field.clean(text)
        except ValidationError as error:
            problems.append((name, text[:80], " ".join(error.messages)))
    return values, problems
