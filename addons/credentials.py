from mitmgate.credentials import Credentials

addons = [Credentials()]
