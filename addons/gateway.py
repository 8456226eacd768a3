"""The whole gate. Copy this file to compose your own: the order of the list is the design.

mitmdump -s addons/gateway.py --mode reverse:http://127.0.0.1:8000
"""

from mitmgate.approval import Approval
from mitmgate.commands import Commands
from mitmgate.console import Console
from mitmgate.credentials import Credentials
from mitmgate.identity import Identity
from mitmgate.masker import Masker
from mitmgate.recorder import Recorder
from mitmgate.views import Views

addons = [
    Identity(),  # who is calling, and may they
    Commands(),  # what is denied, in prompts and answers
    Approval(),  # what waits for a person
    Masker(),  # what the caller does not get to see
    Recorder(),  # on disk before it leaves, and after it came back
    Credentials(),  # the model's own key goes in last
    Console(),
    Views(),
]
