package atlas

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Accounts is the version of service accounts.
const Accounts = "2024-08-05"

// Link leads to a related resource.
type Link struct {
	Href string `json:"href"`
	Rel  string `json:"rel"`
}

// Tag categorizes a group.
type Tag struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Group is sent whole to create one, as the generated clients do: what only the server sets is there with its zero value.
type Group struct {
	ClusterCount              int64     `json:"clusterCount"`
	Created                   time.Time `json:"created"`
	ID                        string    `json:"id,omitempty"`
	Links                     []Link    `json:"links,omitempty"`
	Name                      string    `json:"name"`
	OrgID                     string    `json:"orgId"`
	RegionUsageRestrictions   string    `json:"regionUsageRestrictions,omitempty"`
	Tags                      []Tag     `json:"tags,omitempty"`
	WithDefaultAlertsSettings *bool     `json:"withDefaultAlertsSettings,omitempty"`
}

// Role is what a key may do, and where.
type Role struct {
	GroupID  string `json:"groupId,omitempty"`
	OrgID    string `json:"orgId,omitempty"`
	RoleName string `json:"roleName"`
}

// Key is an API key.
type Key struct {
	Desc       string `json:"desc"`
	ID         string `json:"id"`
	Links      []Link `json:"links"`
	PrivateKey string `json:"privateKey"`
	PublicKey  string `json:"publicKey"`
	Roles      []Role `json:"roles"`
}

// KeyChange is what to change of a key.
type KeyChange struct {
	Desc  *string  `json:"desc,omitempty"`
	Roles []string `json:"roles,omitempty"`
}

// Secret is one of a service account's.
type Secret struct {
	CreatedAt         time.Time  `json:"createdAt"`
	ExpiresAt         time.Time  `json:"expiresAt"`
	ID                string     `json:"id"`
	LastUsedAt        *time.Time `json:"lastUsedAt,omitempty"`
	MaskedSecretValue string     `json:"maskedSecretValue,omitempty"`
	Secret            string     `json:"secret,omitempty"`
}

// Account is a service account.
type Account struct {
	ClientID    string    `json:"clientId"`
	CreatedAt   time.Time `json:"createdAt"`
	Description string    `json:"description"`
	Name        string    `json:"name"`
	Roles       []string  `json:"roles"`
	Secrets     []Secret  `json:"secrets"`
}

// CreateGroup makes a group.
func (c *Client) CreateGroup(ctx context.Context, wanted Group) (Group, error) {
	var made Group
	err := c.call(ctx, http.MethodPost, First, "groups", wanted, &made, http.StatusCreated)
	return made, err
}

// CreateGroupKey makes a key for a group.
func (c *Client) CreateGroupKey(ctx context.Context, group string, wanted KeyChange) (Key, error) {
	var made Key
	err := c.call(ctx, http.MethodPost, First, "groups/"+group+"/apiKeys", wanted, &made, http.StatusOK)
	return made, err
}

// UpdateGroupKey changes a group's key.
func (c *Client) UpdateGroupKey(ctx context.Context, group, key string, wanted KeyChange) (Key, error) {
	var made Key
	path := "groups/" + group + "/apiKeys/" + url.PathEscape(key)
	err := c.call(ctx, http.MethodPatch, First, path, wanted, &made, http.StatusOK)
	return made, err
}

// GetAccount reads a service account.
func (c *Client) GetAccount(ctx context.Context, org, client string) (Account, error) {
	var found Account
	err := c.call(ctx, http.MethodGet, Accounts, "orgs/"+org+"/serviceAccounts/"+client, nil, &found, http.StatusOK)
	return found, err
}

// CreateSecret makes another secret of a service account.
func (c *Client) CreateSecret(ctx context.Context, org, client string, hours int) (Secret, error) {
	var made Secret
	wanted := map[string]int{"secretExpiresAfterHours": hours}
	path := "orgs/" + org + "/serviceAccounts/" + client + "/secrets"
	err := c.call(ctx, http.MethodPost, Accounts, path, wanted, &made, http.StatusCreated)
	return made, err
}

// DeleteSecret ends a secret, and the tokens that it was exchanged for.
func (c *Client) DeleteSecret(ctx context.Context, org, client, secret string) error {
	path := "orgs/" + org + "/serviceAccounts/" + client + "/secrets/" + secret
	return c.call(ctx, http.MethodDelete, Accounts, path, nil, nil, http.StatusNoContent)
}

// Put sends a method that no resource of groups has.
func (c *Client) Put(ctx context.Context, path string) error {
	return c.call(ctx, http.MethodPut, First, path, nil, nil, http.StatusOK)
}
