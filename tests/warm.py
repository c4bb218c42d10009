"""Imported by the fork server of the tests, after Metaflow.

Which distribution each module belongs to, Metaflow works out once in a process, for its
code package. That takes a quarter of a deployment.
"""

from metaflow.packaging_sys import distribution_support

distribution_support.modules_to_distributions()
