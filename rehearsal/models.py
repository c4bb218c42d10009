"""The models of AWS's services, read once.

botocore reads and parses them for each new session, which takes most of the time of a
short transfer. Importing this module lets all sessions of a process, and of its forks,
have one loader; making the S3 client has filled it.
"""

from __future__ import annotations

import functools

import boto3
import botocore.session

botocore.session.create_loader = functools.cache(botocore.session.create_loader)
boto3.Session().client("s3", "us-east-1", aws_access_key_id="", aws_secret_access_key="")
