from mitmgate.approval import Approval

addons = [Approval()]
