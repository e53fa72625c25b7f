"""Prints the test cases of a JUnit report as JSON: name, state, why it is not passed, and what was sent and answered."""
import json
import sys
from xml.etree import ElementTree

cases = [
    {
        "name": case.get("name"),
        "state": case.get("status"),
        "why": case.findtext("system-out") or "",
        "exchanges": case.findtext("system-err") or "",
    }
    for case in ElementTree.parse(sys.argv[1]).iter("testcase")
]
json.dump(cases, sys.stdout)
