"""The template of a citation folder: five papers and seven citations."""

from pathlib import Path

from citeflow import files
from citeflow.errors import ConfigError

PAPERS = """\
id,year,title,abstract
p1,1998,The first paper,Random graphs and their degrees
p2,2001,A paper that cites it,Citations between papers as a random graph
p3,2004,One on something else,Words of abstracts and their frequencies
p4,2009,One that cites two,Degrees of papers in a graph of citations
p5,2015,"The newest, with a comma in its title",Predicting citations from words and graphs
"""

CITATIONS = """\
citing,cited
p2,p1
p3,p1
p4,p1
p4,p2
p5,p2
p5,p3
p5,p4
"""


def write_template(folder: Path) -> None:
    """Write papers.csv and citations.csv into a new or empty folder.

    Raises:
        ConfigError: it holds something.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError("the folder is not empty", folder, hint="name a new one")
    with files.new_directory(folder) as work:
        files.write_text(work / "papers.csv", PAPERS)
        files.write_text(work / "citations.csv", CITATIONS)
