"""What pyproject.toml cannot say."""

from pathlib import Path

from setuptools import setup
from setuptools.command.egg_info import egg_info


class WithoutTheModule(egg_info):
    """Leave the module out of top_level.txt, where Metaflow looks for its distribution.

    From a distribution, Metaflow before 2.19 ships neither an editable module nor, like
    every later one, a module that lies beside the flow while another is installed. A
    module that is in no distribution it ships from wherever it was imported.
    """

    def run(self) -> None:
        """Write the metadata."""
        super().run()
        Path(self.egg_info, "top_level.txt").write_text("rehearsal\n")


setup(cmdclass={"egg_info": WithoutTheModule})
