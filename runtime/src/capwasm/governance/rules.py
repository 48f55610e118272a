"""What `capwasm policy lint` looks for: each rule with a stable id, a severity and its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from capwasm.review.finding import Severity

__all__ = ["RULES", "LintRule"]


@dataclass(frozen=True, slots=True)
class LintRule:
    """One rule.

    Attributes:
        severity: how grave what it finds is.   finds: what it finds.   why: what may come of it.
        fix: what to do, in general; a finding mostly has the very line.
    """

    severity: Severity
    finds: str
    why: str
    fix: str


NOTE, LOW, MEDIUM, HIGH = Severity.NOTE, Severity.LOW, Severity.MEDIUM, Severity.HIGH

RULES: Final[dict[str, LintRule]] = {
    "governance.owner": LintRule(
        MEDIUM, "no owner", "nobody is asked, and nobody answers", 'write owner = "…" at the top'
    ),
    "governance.review-by": LintRule(
        MEDIUM, "no review-by", "what was right once stays for ever", "write review-by at the top"
    ),
    "governance.due": LintRule(
        NOTE, "the review is due soon", "it is overdue next", "look at it, and set a new day"
    ),
    "governance.overdue": LintRule(
        HIGH, "the review is overdue", "nobody looked in time", "look at it, and set a new day"
    ),
    "consent.no-effect": LintRule(
        LOW,
        "consent.automatic names what is a high risk",
        "it reads as if nobody were asked, and somebody is",
        "leave the capability out of automatic",
    ),
    "consent.automatic-for-all": LintRule(
        MEDIUM,
        "a medium risk that every plugin gets, and no person is asked",
        "the next plugin that is installed has it",
        "name the plugins, or leave the capability out of automatic",
    ),
    "updates.absent": LintRule(
        LOW,
        "no [updates], though there are high risks",
        "new versions with high risks serve by the defaults, which nobody chose",
        "write [updates]",
    ),
    "updates.no-way-back": LintRule(
        LOW,
        "error-budget.failures = 0",
        "a new version that fails is never taken back",
        "leave it out, or write a number from 1 up",
    ),
    "review.absent": LintRule(
        LOW,
        "no [review], though there are high risks",
        "high risks serve by the defaults, which nobody chose",
        "write [review]",
    ),
    "strikes.absent": LintRule(
        LOW,
        "no [strikes], though there are high risks",
        "a plugin that keeps trying is stopped by the defaults, which nobody chose",
        "write [strikes]",
    ),
    "revocation.plain-http": LintRule(
        MEDIUM,
        "the revocation feed comes over http",
        "who stands on the way sees it, and can hold it back",
        "write https://",
    ),
    "isolation.weakened": LintRule(
        HIGH,
        "isolation.require leaves out a layer of the default",
        "a process starts although it is not shut in",
        "leave require out, or name the layer again",
    ),
    "isolation.native-for-all": LintRule(
        HIGH,
        "the native code of every plugin may run",
        "native code meets the kernel; it is to be named plugin by plugin",
        "name the plugins",
    ),
    "selector.high-for-all": LintRule(
        HIGH,
        'a high risk, or a secret, for "*"',
        "every plugin that is ever installed may ask for it",
        "name the plugins, or their prefix",
    ),
    "selector.says-nothing": LintRule(
        LOW, "a selector without a rule", "it reads as if it did something", "remove it"
    ),
    "selector.not-installed": LintRule(
        NOTE,
        "a selector that no installed plugin matches",
        "a slip in the id, or what is left of a plugin that is gone",
        "mend the id, or remove it",
    ),
    "limits.above-machine": LintRule(
        MEDIUM,
        "a limit on memory above what this machine has",
        "it bounds nothing here",
        "write less than the machine has",
    ),
    "limits.above-ceiling": LintRule(
        LOW,
        "a plugin's limit above the ceiling at the top",
        "the ceiling holds, so the line does nothing",
        "write at most the ceiling",
    ),
    "rule.denied": LintRule(
        MEDIUM,
        "a rule that is denied as a whole",
        "it reads as if it allowed something",
        "remove the rule, or the denial",
    ),
    "rule.repeated": LintRule(
        NOTE,
        "a rule that lies within another",
        "whoever removes one believes that it is gone",
        "remove one of them",
    ),
    "rule.nothing": LintRule(
        LOW, "a rule that allows nothing", "it reads as if it did", "remove it, or give it a size"
    ),
    "deny.no-effect": LintRule(
        NOTE,
        "a denial of what no rule allows",
        "a slip in it goes unseen; if it is there for later rules, all is well",
        "mend it, or leave it for later rules",
    ),
    "deny.repeated": LintRule(
        NOTE, "a denial that lies within another", "it does nothing", "remove it"
    ),
    "net.plain-http": LintRule(
        HIGH,
        "http:// to another machine",
        "whoever stands on the way reads and changes it",
        "write https://",
    ),
    "net.shared-suffix": LintRule(
        HIGH,
        "a wildcard below a name where anybody can have a name",
        "a plugin that leaks needs just an account there",
        "name the host",
    ),
    "net.every-method": LintRule(
        MEDIUM, 'methods = ["*"]', "it can change and delete there", "name the methods"
    ),
    "net.private": LintRule(
        MEDIUM,
        "private, loopback or link-local addresses",
        "services inside often ask nobody who they are",
        "name one host, and the narrowest network it has",
    ),
    "net.metadata": LintRule(
        HIGH,
        "the address where a cloud hands out credentials",
        "the plugin can become this machine",
        "remove it",
    ),
    "net.wide-network": LintRule(
        HIGH,
        "a network of more than 65,536 addresses (IPv4), or wider than /48 (IPv6)",
        "nobody knows all that answers there",
        "name the narrowest network",
    ),
    "net.many-ports": LintRule(
        MEDIUM,
        "a range of more than 16 ports",
        "each service of the host is in reach",
        "name the port",
    ),
    "fs.any-directory": LintRule(
        HIGH,
        "a rule without path",
        "the manifest may name any directory of the host",
        "write path",
    ),
    "fs.wide-write": LintRule(
        HIGH,
        "changes in a directory that is the system's, or many people's",
        "files there are run, or belong to others",
        "give a directory of its own",
    ),
    "fs.wide-read": LintRule(
        MEDIUM,
        "reads in a directory that is the system's, or many people's",
        "much that lies there is nobody's to see",
        "give a directory of its own",
    ),
    "fs.credentials": LintRule(
        HIGH,
        "a directory in which tools keep credentials",
        "who reads it can be its owner elsewhere",
        "give another directory",
    ),
    "fs.no-quota": LintRule(
        MEDIUM,
        "read-write without a quota",
        "it can fill the disk",
        'write quota = "100MiB"',
    ),
    "secret.reveal": LintRule(
        HIGH,
        "a secret that the plugin sees",
        "it can pass it on wherever it can write",
        'use = "inject": the host sends it',
    ),
    "secret.wide-net": LintRule(
        MEDIUM,
        "a secret for an origin that is reached by a wildcard",
        "the rule for the network is wider than the secret's use",
        "name the host in the rule for the network",
    ),
    "secret.unsendable": LintRule(
        LOW,
        "a secret for an origin that no rule for the network reaches",
        "it can't be sent there",
        "allow the origin, or remove it from the secret",
    ),
    "secret.any-header": LintRule(
        LOW,
        "a secret without a header",
        "the manifest says where it stands; a service may write some headers into its log",
        'write header = "Authorization: Bearer {}"',
    ),
    "exec.interpreter": LintRule(
        HIGH,
        "a program that runs what its arguments or its input say",
        "the plugin runs what it likes, within the sandbox",
        "name the program that does the work",
    ),
    "exec.free-argument": LintRule(
        HIGH,
        "a hole that takes any text",
        "the plugin writes the command line",
        "write the narrowest expression: {size:[0-9]{1,4}}",
    ),
    "exec.path-argument": LintRule(
        LOW,
        "a hole that takes a path",
        "the plugin chooses among all that the command sees",
        "keep slashes and dots out of the expression",
    ),
    "exec.no-program": LintRule(
        LOW, "a command without a program", "nothing can be run by it", "write program"
    ),
}
