"""Makes the workshop's notebook in both languages: llm_training.ipynb, entrenamiento_llm.ipynb.

    python notebooks/make.py           writes both
    python notebooks/make.py --check   fails where one is not what this script makes (outputs aside)

Cells are in `cells.py`, both languages side by side. Needs nbformat (requirements.txt).
"""

import pathlib
import re
import sys

import nbformat

from cells import CELLS

FOLDER = pathlib.Path(__file__).parent
NOTEBOOKS = {"en": "llm_training.ipynb", "es": "entrenamiento_llm.ipynb"}
# <<English||Spanish>>: the one place where the languages differ in a cell.
CHOICE = re.compile(r"<<(.*?)\|\|(.*?)>>", re.DOTALL)


def in_language(text, language):
    """The text of a cell with one language of each choice."""
    index = list(NOTEBOOKS).index(language)
    return CHOICE.sub(lambda choice: choice.groups()[index].strip(), text).strip()


def notebook(language):
    """The notebook of a language, without outputs."""
    cells = []
    for number, (kind, text) in enumerate(CELLS):
        new = nbformat.v4.new_markdown_cell if kind == "markdown" else nbformat.v4.new_code_cell
        cell = new(in_language(text.replace("NOTEBOOK", NOTEBOOKS[language]), language))
        # By place, not at random: making it again changes nothing.
        cell.id = f"cell-{number}"
        if "#@title" in cell.source:
            cell.metadata["cellView"] = "form"
            cell.metadata["jupyter"] = {"source_hidden": True}
        cells.append(cell)
    made = nbformat.v4.new_notebook(cells=cells)
    made.metadata = {
        "colab": {"provenance": [], "toc_visible": True},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.validate(made)
    return made


def source(made):
    """What `--check` compares: the cells without what a run of them adds."""
    return [(cell.cell_type, cell.id, cell.source) for cell in made.cells]


def main():
    """Writes or checks both notebooks."""
    stale = []
    for language, name in NOTEBOOKS.items():
        path, made = FOLDER / name, notebook(language)
        if "--check" not in sys.argv:
            nbformat.write(made, path)
        elif not path.exists() or source(nbformat.read(path, as_version=4)) != source(made):
            stale.append(name)
    if stale:
        sys.exit(f"{', '.join(stale)}: not what make.py makes; run python notebooks/make.py")


if __name__ == "__main__":
    main()
