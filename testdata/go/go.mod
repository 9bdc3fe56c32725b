module git.com/paas/myagent

go 1.19
