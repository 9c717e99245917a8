package atlas

import (
	"context"
	"net/http"
)

// The versions of the resources that are called.
const (
	First = "2023-01-01"
	// Drop is the version that has dropDestinationData instead of dropEnabled.
	Drop = "2024-05-30"
)

// Source is the deployment to read.
type Source struct {
	CACertificatePath     *string `json:"caCertificatePath,omitempty"`
	ClusterName           string  `json:"clusterName"`
	GroupID               string  `json:"groupId"`
	ManagedAuthentication bool    `json:"managedAuthentication"`
	Password              *string `json:"password,omitempty"`
	SSL                   bool    `json:"ssl"`
	Username              *string `json:"username,omitempty"`
}

// Destination is the cluster to write.
type Destination struct {
	ClusterName        string  `json:"clusterName"`
	GroupID            string  `json:"groupId"`
	HostnameSchemaType string  `json:"hostnameSchemaType"`
	PrivateLinkID      *string `json:"privateLinkId,omitempty"`
}

// Request asks for a migration or a validation: DropEnabled at First, DropDestinationData at Drop.
type Request struct {
	Destination         Destination `json:"destination"`
	DropDestinationData *bool       `json:"dropDestinationData,omitempty"`
	DropEnabled         *bool       `json:"dropEnabled,omitempty"`
	MigrationHosts      []string    `json:"migrationHosts"`
	Source              Source      `json:"source"`
}

// Migration is one job.
type Migration struct {
	ID              string   `json:"_id"`
	LagTimeSeconds  *int64   `json:"lagTimeSeconds"`
	MigrationHosts  []string `json:"migrationHosts"`
	ReadyForCutover bool     `json:"readyForCutover"`
	Status          string   `json:"status"`
}

// Validation is one preflight.
type Validation struct {
	ID            string  `json:"_id"`
	ErrorMessage  *string `json:"errorMessage"`
	GroupID       string  `json:"groupId"`
	SourceGroupID string  `json:"sourceGroupId"`
	Status        string  `json:"status"`
}

// Project is what the agents of one group announce.
type Project struct {
	Deployments    []Deployment `json:"deployments"`
	MigrationHosts []string     `json:"migrationHosts"`
	Name           string       `json:"name"`
	ProjectID      string       `json:"projectId"`
}

// Deployment is one cluster that can be read.
type Deployment struct {
	AgentVersion                string `json:"agentVersion"`
	ClusterID                   string `json:"clusterId"`
	DBSizeBytes                 int64  `json:"dbSizeBytes"`
	FeatureCompatibilityVersion string `json:"featureCompatibilityVersion"`
	Managed                     bool   `json:"managed"`
	MongoDBVersion              string `json:"mongoDBVersion"`
	Name                        string `json:"name"`
	OplogSizeMB                 int32  `json:"oplogSizeMB"`
	Sharded                     bool   `json:"sharded"`
	ShardsSize                  int32  `json:"shardsSize"`
	TLSEnabled                  bool   `json:"tlsEnabled"`
}

// CreateLinkToken links agents to the organization.
func (c *Client) CreateLinkToken(ctx context.Context, org string, accessListIPs []string) (string, error) {
	body := map[string]any{}
	if accessListIPs != nil {
		body["accessListIps"] = accessListIPs
	}
	var made struct {
		LinkToken string `json:"linkToken"`
	}
	path := "orgs/" + org + "/liveMigrations/linkTokens"
	err := c.call(ctx, http.MethodPost, First, path, body, &made, http.StatusCreated)
	return made.LinkToken, err
}

// DeleteLinkToken revokes it.
func (c *Client) DeleteLinkToken(ctx context.Context, org string) error {
	path := "orgs/" + org + "/liveMigrations/linkTokens"
	return c.call(ctx, http.MethodDelete, First, path, nil, nil, http.StatusNoContent)
}

// ListAvailableProjects tells what agents announce.
func (c *Client) ListAvailableProjects(ctx context.Context, org string) ([]Project, error) {
	var projects []Project
	path := "orgs/" + org + "/liveMigrations/availableProjects"
	err := c.call(ctx, http.MethodGet, First, path, nil, &projects, http.StatusOK)
	return projects, err
}

// Validate asks whether a migration could start.
func (c *Client) Validate(ctx context.Context, version, group string, request Request) (Validation, error) {
	var validation Validation
	path := "groups/" + group + "/liveMigrations/validate"
	err := c.call(ctx, http.MethodPost, version, path, request, &validation, http.StatusOK)
	return validation, err
}

// GetValidation tells how far one is.
func (c *Client) GetValidation(ctx context.Context, group, id string) (Validation, error) {
	var validation Validation
	path := "groups/" + group + "/liveMigrations/validate/" + id
	err := c.call(ctx, http.MethodGet, First, path, nil, &validation, http.StatusOK)
	return validation, err
}

// Create starts a migration.
func (c *Client) Create(ctx context.Context, version, group string, request Request) (Migration, error) {
	var migration Migration
	path := "groups/" + group + "/liveMigrations"
	err := c.call(ctx, http.MethodPost, version, path, request, &migration, http.StatusCreated)
	return migration, err
}

// Get tells how far one is.
func (c *Client) Get(ctx context.Context, group, id string) (Migration, error) {
	var migration Migration
	err := c.call(ctx, http.MethodGet, First, "groups/"+group+"/liveMigrations/"+id, nil, &migration, http.StatusOK)
	return migration, err
}

// CutOver makes the destination take over.
func (c *Client) CutOver(ctx context.Context, group, id string) error {
	path := "groups/" + group + "/liveMigrations/" + id + "/cutover"
	return c.call(ctx, http.MethodPut, First, path, nil, nil, http.StatusAccepted)
}
