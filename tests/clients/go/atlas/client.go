// Package atlas calls the Cloud Migration Service in the way of the Go clients of the Atlas Administration API: their
// two transports for authentication, one dated media type in Accept and Content-Type, every status from 300 on read as
// an error, and an error's body only where its media type is JSON. It is stricter than they are in one thing: an
// attribute that the published interface doesn't have is an error.
package atlas

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"

	"github.com/mongodb-forks/digest"
	"golang.org/x/oauth2/clientcredentials"
)

// Client calls one server with one identity.
type Client struct {
	http *http.Client
	base string
}

// WithDigest signs each request with an API key.
func WithDigest(base, publicKey, privateKey string) (*Client, error) {
	signing, err := digest.NewTransport(publicKey, privateKey).Client()
	if err != nil {
		return nil, err
	}
	return &Client{signing, strings.TrimSuffix(base, "/")}, nil
}

// WithOAuth gets bearer tokens with a service account's credentials.
func WithOAuth(base, clientID, clientSecret string) *Client {
	base = strings.TrimSuffix(base, "/")
	config := clientcredentials.Config{
		ClientID:     clientID,
		ClientSecret: clientSecret,
		TokenURL:     base + "/api/oauth/token",
	}
	return &Client{config.Client(context.Background()), base}
}

// Error is an answer's body from status 300 on.
type Error struct {
	BadRequestDetail *struct {
		Fields []struct {
			Description string `json:"description"`
			Field       string `json:"field"`
		} `json:"fields"`
	} `json:"badRequestDetail"`
	Detail     string   `json:"detail"`
	Status     int      `json:"error"`
	Code       string   `json:"errorCode"`
	Parameters []string `json:"parameters"`
	Reason     string   `json:"reason"`
}

func (e *Error) Error() string {
	return fmt.Sprintf("HTTP %d %s: %s", e.Status, e.Code, e.Detail)
}

var isJSON = regexp.MustCompile(`^application/(vnd\.[^;]+\+)?json(;|$)`)

// call sends one request and reads its answer into result, which may be nil where no body is expected.
func (c *Client) call(ctx context.Context, method, version, path string, body, result any, status int) error {
	media := fmt.Sprintf("application/vnd.atlas.%s+json", version)
	var content io.Reader = http.NoBody
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewBuffer(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base+"/api/atlas/v2/"+path, content)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", media)
	request.Header.Set("User-Agent", "go-atlas-client")
	if body != nil {
		request.Header.Set("Content-Type", media)
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if err != nil {
		return err
	}
	given := answer.Header.Get("Content-Type")
	if !isJSON.MatchString(given) {
		return fmt.Errorf("%s %s: undefined response type %q", method, path, given)
	}
	if answer.StatusCode >= 300 {
		problem := &Error{}
		if err := strictly(text, problem); err != nil {
			return fmt.Errorf("%s: %w", answer.Status, err)
		}
		if problem.Status != answer.StatusCode {
			return fmt.Errorf("%s, and its body says %d", answer.Status, problem.Status)
		}
		return problem
	}
	if answer.StatusCode != status {
		return fmt.Errorf("%s %s: %s, expected %d", method, path, answer.Status, status)
	}
	if expected := media + ";charset=utf-8"; given != expected {
		return fmt.Errorf("%s %s: %q, expected %q", method, path, given, expected)
	}
	if result == nil {
		if len(text) != 0 {
			return fmt.Errorf("%s %s: a body where there is none: %s", method, path, text)
		}
		return nil
	}
	return strictly(text, result)
}

func strictly(text []byte, result any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(result); err != nil {
		return fmt.Errorf("%w in %s", err, text)
	}
	return nil
}
