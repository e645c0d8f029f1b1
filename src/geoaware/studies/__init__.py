"""The paper's analyses: each measures one thing on any data set and puts the paper's figures beside ours."""
