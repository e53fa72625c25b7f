package registry

import "net/http"

// asGo14 names net/http as Go 1.4 did, with which docker 1.3 and 1.5 were built: it is all that their ping tells of who asks.
func asGo14(req *http.Request) *http.Request {
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "Go 1.1 package http")
	}
	return req
}
