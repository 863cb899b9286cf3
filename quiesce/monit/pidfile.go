package monit

import (
	"context"
	"html"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/quiesced/quiesced/quiesce/jobs"
	"github.com/quiesced/quiesced/quiesce/jobs/processes"
)

// pidFileRow is the row of a service's page that names its pid file. The status does not
// name it.
var pidFileRow = regexp.MustCompile(`(?is)<td[^>]*>\s*pid ?file\s*</td>\s*<td[^>]*>(.*?)</td>`)

// fromPIDFile returns the process of a service that monit shows no pid of, as monit itself
// would find it. It answers false if there is none, or if monit's page does not tell.
func (c *Client) fromPIDFile(ctx context.Context, service string) (jobs.Process, bool) {
	path, known := c.pidFile(service)
	if !known {
		page, err := c.request(ctx, http.MethodGet, "/"+url.PathEscape(service), nil)
		if err != nil {
			return jobs.Process{}, false
		}
		if row := pidFileRow.FindSubmatch(page); row != nil {
			path = html.UnescapeString(strings.TrimSpace(string(row[1])))
		}
		c.mu.Lock()
		c.pidFiles[service] = path
		c.mu.Unlock()
	}
	return readPIDFile(path)
}

// pidFile is what this monit's page told, "" if it tells nothing.
func (c *Client) pidFile(service string) (path string, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	path, known = c.pidFiles[service]
	return path, known
}

// forgetPIDFiles is for another monit than the one that was asked before.
func (c *Client) forgetPIDFiles(incarnation string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.incarnation != incarnation {
		clear(c.pidFiles)
	}
	c.incarnation = incarnation
}

// maxPIDFile bounds a pid file, in bytes.
const maxPIDFile = 4096

// readPIDFile reads the first line; some servers, PostgreSQL for one, write more. It
// passes over a file that is older than the process that has the pid now: it was
// another's.
func readPIDFile(path string) (jobs.Process, bool) {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxPIDFile {
		return jobs.Process{}, false
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return jobs.Process{}, false
	}
	line, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return jobs.Process{}, false
	}
	p, ok := processes.Find(pid)
	return p, ok && !processes.StartedAfter(p, info.ModTime())
}
