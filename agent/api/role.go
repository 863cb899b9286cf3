package api

import (
	"fmt"
	"strings"

	"github.com/quiesced/quiesced/agent"
)

// Role is what a caller may do. Its zero value may do nothing: a transport that
// forgets to say who calls serves nobody.
type Role int

// The roles, each with the rights of those before it.
const (
	RoleNone     Role = iota
	RoleHolder        // holds alone, and no runs but those: a director's worker on the director's own VM
	RoleOperator      // everything
)

// byHolder begins the record of who asked for a hold where that was a holder. What
// a transport says of an operator never begins so.
const byHolder = "holder "

// by is who calls, for the record.
func (c Call) by() string {
	if c.Role == RoleHolder {
		return byHolder + c.By
	}
	return c.By
}

// may is an error of KindForbidden unless the caller's role is this one or above.
func (c Call) may(least Role) error {
	if c.Role != RoleNone && c.Role >= least {
		return nil
	}
	return &Error{Kind: KindForbidden, Message: fmt.Sprintf("%s may not call %s", c.by(), c.name())}
}

// mine is an error of KindForbidden where the caller may not follow, renew or end a
// run. A holder may do so with what a holder asked for, whichever process of his that
// was, and before whichever restart of the daemon: it is in the run's record.
func (c Call) mine(run *agent.Run) error {
	if c.Role == RoleOperator || c.Role == RoleHolder && strings.HasPrefix(run.Request().By, byHolder) {
		return nil
	}
	return &Error{Kind: KindForbidden, Message: fmt.Sprintf("%s may not call %s for %s, which no holder asked for", c.by(), c.name(), run.ID())}
}
