// The Cloud Migration Service, called by Go clients. Run by the tests of the program, which start what is called and
// name it in the environment.
package clients

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"testing"
	"time"

	"limosa/tests/clients/atlas"

	"golang.org/x/oauth2"
)

const (
	// patience is how long any state may take to come.
	patience = 2 * time.Minute
	unknown  = "0123456789abcdef01234567"
)

// given is what the test's surroundings must name.
func given(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv("LIMOSA_" + name)
	if value == "" {
		t.Fatalf("LIMOSA_%s is not set: run this by cargo x test", name)
	}
	return value
}

func byDigest(t *testing.T) *atlas.Client {
	t.Helper()
	client, err := atlas.WithDigest(given(t, "URL"), given(t, "PUBLIC_KEY"), given(t, "PRIVATE_KEY"))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func byOAuth(t *testing.T) *atlas.Client {
	t.Helper()
	return atlas.WithOAuth(given(t, "URL"), given(t, "CLIENT_ID"), given(t, "CLIENT_SECRET"))
}

// refused holds an error against the status and code it should have, and returns it.
func refused(t *testing.T, err error, status int, code string) *atlas.Error {
	t.Helper()
	var problem *atlas.Error
	if !errors.As(err, &problem) {
		t.Fatalf("no error of the API but %v", err)
	}
	if problem.Status != status || problem.Code != code {
		t.Fatalf("%v, expected %d %s", problem, status, code)
	}
	return problem
}

func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

// waitFor looks until done holds.
func waitFor[T any](t *testing.T, what string, look func() (T, error), done func(T) bool) T {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		value := must[T](t)(look())
		if done(value) {
			return value
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s never came; last: %+v", what, value)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func request(t *testing.T, version string) atlas.Request {
	t.Helper()
	group, no := given(t, "GROUP_ID"), false
	wanted := atlas.Request{
		Destination:    atlas.Destination{ClusterName: "new", GroupID: group, HostnameSchemaType: "PUBLIC"},
		MigrationHosts: []string{"mover1"},
		Source:         atlas.Source{ClusterName: "old", GroupID: group, ManagedAuthentication: true},
	}
	if version == atlas.First {
		wanted.DropEnabled = &no
	} else {
		wanted.DropDestinationData = &no
	}
	return wanted
}

func TestEveryOperationAnswersAndRefuses(t *testing.T) {
	for name, client := range map[string]*atlas.Client{"digest": byDigest(t), "oauth": byOAuth(t)} {
		t.Run(name, func(t *testing.T) {
			ctx, org, group := context.Background(), given(t, "ORG_ID"), given(t, "GROUP_ID")
			missing := refused(t, client.DeleteLinkToken(ctx, org), 404, "UNEXPECTED_ERROR")
			if missing.Detail != "Could not find the requested external organization link." {
				t.Fatal(missing)
			}
			token := must[string](t)(client.CreateLinkToken(ctx, org, []string{"127.0.0.1", "10.0.0.0/8"}))
			checkToken(t, token, org)
			_, err := client.CreateLinkToken(ctx, org, nil)
			refused(t, err, 409, "ATLAS_ORG_ALREADY_LINKED")
			if err := client.DeleteLinkToken(ctx, org); err != nil {
				t.Fatal(err)
			}
			_, err = client.ListAvailableProjects(ctx, unknown)
			refused(t, err, 404, "ORG_NOT_FOUND")
			projects := must[[]atlas.Project](t)(client.ListAvailableProjects(ctx, org))
			if projects == nil || len(projects) != 0 {
				t.Fatalf("%+v, expected an empty list", projects)
			}
			for _, version := range []string{atlas.First, atlas.Drop} {
				_, err = client.Create(ctx, version, group, request(t, version))
				refused(t, err, 404, "CLUSTER_NOT_FOUND")
				_, err = client.Validate(ctx, version, group, request(t, version))
				refused(t, err, 404, "CLUSTER_NOT_FOUND")
			}
			crowded := request(t, atlas.Drop)
			crowded.MigrationHosts = []string{"mover1", "mover2"}
			_, err = client.Create(ctx, atlas.Drop, group, crowded)
			detail := refused(t, err, 400, "VALIDATION_ERROR").BadRequestDetail
			if detail == nil || len(detail.Fields) != 1 || detail.Fields[0].Field != "migrationHosts" {
				t.Fatalf("%+v", detail)
			}
			_, err = client.Get(ctx, group, unknown)
			if parameters := refused(t, err, 404, "RESOURCE_NOT_FOUND").Parameters; parameters[0] != unknown {
				t.Fatal(parameters)
			}
			_, err = client.Get(ctx, unknown, unknown)
			refused(t, err, 404, "GROUP_NOT_FOUND")
			_, err = client.GetValidation(ctx, group, unknown)
			refused(t, err, 404, "RESOURCE_NOT_FOUND")
			refused(t, client.CutOver(ctx, group, unknown), 404, "RESOURCE_NOT_FOUND")
		})
	}
}

// checkToken reads a link token as the agents of the field do.
func checkToken(t *testing.T, token, org string) {
	t.Helper()
	text := must[[]byte](t)(base64.StdEncoding.DecodeString(token))
	var inside struct {
		OrgID         string `json:"orgId"`
		OrgName       string `json:"orgName"`
		PrivateAPIKey string `json:"privateApiKey"`
		PublicAPIKey  string `json:"publicApiKey"`
	}
	if err := json.Unmarshal(text, &inside); err != nil {
		t.Fatal(err)
	}
	private := regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	public := regexp.MustCompile(`^[a-z]{8}$`)
	if inside.OrgID != org || inside.OrgName == "" || !public.MatchString(inside.PublicAPIKey) || !private.MatchString(inside.PrivateAPIKey) {
		t.Fatal("the token's inside is not as it should be")
	}
}

func TestWrongCredentialsAreRefused(t *testing.T) {
	ctx, org := context.Background(), given(t, "ORG_ID")
	for _, key := range [][2]string{{given(t, "PUBLIC_KEY"), "wrong"}, {"nobodyxx", given(t, "PRIVATE_KEY")}} {
		client, err := atlas.WithDigest(given(t, "URL"), key[0], key[1])
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.ListAvailableProjects(ctx, org)
		refused(t, err, 401, "UNEXPECTED_ERROR")
	}
	_, err := atlas.WithOAuth(given(t, "URL"), given(t, "CLIENT_ID"), "wrong").ListAvailableProjects(ctx, org)
	var token *oauth2.RetrieveError
	if !errors.As(err, &token) || token.ErrorCode != "invalid_client" {
		t.Fatal(err)
	}
}

func TestAWholeMigration(t *testing.T) {
	ctx, org, group := context.Background(), given(t, "ORG_ID"), given(t, "GROUP_ID")
	client, other := byDigest(t), byOAuth(t)
	token := must[string](t)(client.CreateLinkToken(ctx, org, []string{"127.0.0.1"}))
	joinAgent(t, token)
	projects := waitFor(t, "the announced deployment", func() ([]atlas.Project, error) {
		return other.ListAvailableProjects(ctx, org)
	}, func(projects []atlas.Project) bool { return len(projects) == 1 && len(projects[0].Deployments) == 1 })
	announced := projects[0]
	if announced.ProjectID != group || announced.MigrationHosts[0] != "mover1" {
		t.Fatalf("%+v", announced)
	}
	old := announced.Deployments[0]
	known := old.AgentVersion != "" && len(old.ClusterID) == 24 && old.DBSizeBytes > 0 && old.OplogSizeMB > 0
	if !known || old.FeatureCompatibilityVersion != "6.0" || old.MongoDBVersion != "6.0.5" || old.Name != "old" {
		t.Fatalf("%+v", old)
	}
	if !old.Managed || old.Sharded || old.ShardsSize != 1 || old.TLSEnabled {
		t.Fatalf("%+v", old)
	}

	for _, version := range []string{atlas.First, atlas.Drop} {
		asked := must[atlas.Validation](t)(client.Validate(ctx, version, group, request(t, version)))
		if asked.Status != "PENDING" || asked.GroupID != group || asked.SourceGroupID != group {
			t.Fatalf("%+v", asked)
		}
		found := waitFor(t, "the validation's end", func() (atlas.Validation, error) {
			return client.GetValidation(ctx, group, asked.ID)
		}, func(v atlas.Validation) bool { return v.Status != "PENDING" })
		if found.Status != "SUCCESS" || found.ErrorMessage != nil {
			t.Fatalf("%+v", found)
		}
	}

	made := must[atlas.Migration](t)(client.Create(ctx, atlas.Drop, group, request(t, atlas.Drop)))
	if made.Status != "NEW" || made.ReadyForCutover || made.LagTimeSeconds != nil || made.MigrationHosts[0] != "mover1" {
		t.Fatalf("%+v", made)
	}
	get := func() (atlas.Migration, error) { return other.Get(ctx, group, made.ID) }
	refused(t, client.CutOver(ctx, group, made.ID), 409, "LIVE_MIGRATION_NOT_READY")
	_, err := client.Create(ctx, atlas.First, group, request(t, atlas.First))
	refused(t, err, 409, "DESTINATION_CLUSTER_ALREADY_MIGRATING")
	ready := waitFor(t, "readyForCutover", get, func(m atlas.Migration) bool {
		if m.Status != "NEW" && m.Status != "WORKING" {
			t.Fatalf("%+v", m)
		}
		return m.ReadyForCutover
	})
	if ready.Status != "WORKING" || ready.LagTimeSeconds == nil {
		t.Fatalf("%+v", ready)
	}
	active := refused(t, client.DeleteLinkToken(ctx, org), 409, "CANNOT_DELETE_ORG_ACTIVE_LIVE_MIGRATION_ATLAS_ORG_LINK")
	if active.Parameters[0] != group {
		t.Fatal(active.Parameters)
	}
	if err := client.CutOver(ctx, group, made.ID); err != nil {
		t.Fatal(err)
	}
	complete := waitFor(t, "COMPLETE", get, func(m atlas.Migration) bool {
		if m.Status != "WORKING" && m.Status != "COMPLETE" || m.ReadyForCutover {
			t.Fatalf("%+v", m)
		}
		return m.Status == "COMPLETE"
	})
	if complete.LagTimeSeconds != nil || complete.ID != made.ID {
		t.Fatalf("%+v", complete)
	}
	if err := client.DeleteLinkToken(ctx, org); err != nil {
		t.Fatal(err)
	}
}

// joinAgent starts a migration host with the token; it ends with the test.
func joinAgent(t *testing.T, token string) {
	t.Helper()
	agent := exec.Command(given(t, "PROGRAM"), "agent", "--server", given(t, "URL"), "--host-name", "mover1",
		"--source", "old="+given(t, "SOURCE_URI"), "--data-dir", t.TempDir())
	agent.Env = append(os.Environ(), "LIMOSA_LINK_TOKEN="+token)
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		agent.Process.Kill()
		agent.Wait()
	})
}
