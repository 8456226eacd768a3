from mitmgate.recorder import Recorder

addons = [Recorder()]
