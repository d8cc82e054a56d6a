"""The command ``coral``. Commands are named here and loaded when they run, so that a help page costs what click costs."""

from __future__ import annotations

import sys

from coral.cli.entry import run

COMMANDS = {
    "dev": ("coral.dev.command:dev", "Run a colony and an agent on this host, to try things out."),
    "colony init": ("coral.colony.command:init", "Make the keys of a new colony, and its first token."),
    "colony admin": ("coral.colony.command:admin", "Make a new admin's token for a colony that is stopped."),
    "colony start": ("coral.colony.command:start", "Run the control plane."),
    "agent start": ("coral.agent.command:start", "Run the agent of this host; needs root."),
    "agent lockdown": (
        "coral.agent.lockdown_command:lockdown",
        "Detach everything on this host, and refuse new probes.",
    ),
    "agent invite": ("coral.cli.enrolment_commands:invite", "Invite a host to join the colony."),
    "agent revoke": ("coral.cli.enrolment_commands:revoke", "Put an agent out of the colony."),
    "agent list": ("coral.cli.listing_commands:agents", "List the agents that the colony knows."),
    "service list": ("coral.cli.listing_commands:services", "List the services that can be debugged."),
    "function list": ("coral.cli.function_commands:functions", "List what can be probed."),
    "debug attach": ("coral.cli.attach_command:attach", "Watch a function of a running service."),
    "debug info": ("coral.cli.function_commands:info", "Show what an attach would do, without attaching."),
    "debug session list": ("coral.cli.session_commands:list_sessions", "List sessions, running and ended."),
    "debug session get": ("coral.cli.session_commands:get", "Show one session."),
    "debug session events": ("coral.cli.session_commands:events", "Show the calls that a session saw."),
    "debug session stop": ("coral.cli.session_commands:stop", "End a session, and show it."),
    "trace": ("coral.dev.trace_command:trace", "Watch a function of one process, without any daemon."),
    "doctor": ("coral.dev.doctor_command:doctor", "Check what works on this host, and what to do where it does not."),
    "login": ("coral.cli.login_command:login", "Keep a token for a colony, so that commands use it."),
    "context list": ("coral.cli.context_commands:list_contexts", "List the colonies that you are signed in to."),
    "context use": ("coral.cli.context_commands:use", "Use another one of them."),
    "token create": ("coral.cli.token_commands:create", "Make a token for a user."),
    "token list": ("coral.cli.token_commands:list_tokens", "List the tokens of users."),
    "token revoke": ("coral.cli.token_commands:revoke", "End a user's token at once."),
    "config show": ("coral.cli.config_command:show", "Show the settings, and where each comes from."),
    "policy check": ("coral.cli.policy_commands:check", "Check policies: files of them, or those of the colony."),
    "policy test": ("coral.cli.policy_commands:run_test", "Try cases on policies."),
    "policy explain": ("coral.cli.policy_commands:explain", "Say what the colony's policies would decide, and why."),
    "approval list": ("coral.cli.approval_commands:list_approvals", "List what waits for somebody's approval."),
    "approval approve": ("coral.cli.approval_commands:approve", "Let somebody else do what they asked to do."),
    "approval deny": ("coral.cli.approval_commands:deny", "Refuse what somebody else asked to do."),
    "audit query": ("coral.cli.audit_commands:query", "Show who did what."),
    "audit export": ("coral.cli.audit_commands:export", "Write the audit log as it is kept."),
    "audit verify": ("coral.cli.audit_commands:verify", "Prove that the audit log is what was written."),
    "data purge": ("coral.cli.data_commands:purge", "Remove ended sessions with what they recorded, for good."),
    "db query": ("coral.cli.database_command:query", "Ask the colony's database in SQL."),
}
"""By path: where the command is, and its one-line help."""

GROUPS = {
    "colony": "The control plane.",
    "agent": "The hosts.",
    "service": "The services.",
    "function": "The functions of a service.",
    "debug": "Debug a service.",
    "debug session": "What is and was debugged.",
    "context": "The colonies that you work with.",
    "token": "The tokens of users.",
    "config": "The settings of colony and agent.",
    "policy": "Who may do what.",
    "approval": "What needs a second person.",
    "audit": "Who did what.",
    "data": "What sessions recorded.",
    "db": "The colony's database.",
}
"""By path: the one-line help of each group."""


def main() -> None:
    """Runs the command line of this process and exits."""
    sys.exit(run(sys.argv[1:], commands=COMMANDS, groups=GROUPS))


if __name__ == "__main__":
    main()
