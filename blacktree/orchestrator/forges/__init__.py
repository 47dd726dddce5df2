"""The forges that can tell us of a change, one adapter each."""

from blacktree.orchestrator.forges.base import ForgeAdapter
from blacktree.orchestrator.forges.gitea import Gitea
from blacktree.orchestrator.forges.github import GitHub
from blacktree.orchestrator.forges.gitlab import GitLab

FORGES: dict[str, ForgeAdapter] = {"github": GitHub(), "gitlab": GitLab(), "gitea": Gitea()}
