// A storage account and a container for one Keepstone repository: settings, the lifecycle rule, custom roles, and who
// has them. The page azure.md says why each setting is as it is.
//
//   az deployment group create --resource-group GROUP --template-file repository.bicep \
//     --parameters accountName=ACCOUNT writers='["OBJECT-ID"]'

targetScope = 'resourceGroup'

@description('Name of the storage account: 3 to 24 lower-case letters and digits, unique in the whole cloud.')
@minLength(3)
@maxLength(24)
param accountName string

@description('Where the account is.')
param location string = resourceGroup().location

@description('How the data is kept. RA-GRS and RA-GZRS have a second region that can be read.')
@allowed([
  'Standard_LRS'
  'Standard_ZRS'
  'Standard_GRS'
  'Standard_GZRS'
  'Standard_RAGRS'
  'Standard_RAGZRS'
])
param sku string = 'Standard_ZRS'

@description('Name of the container. One container for each repository: rights end at the container.')
@minLength(3)
@maxLength(63)
param containerName string = 'backups'

@description('Days for which a deleted blob, version or container can be brought back.')
@minValue(1)
@maxValue(365)
param softDeleteDays int = 14

@description('Whether what is deleted or overwritten stays as a previous version. Replication and immutability need it.')
param versioning bool = true

@description('Previous versions of blobs that were written more than this many days ago are removed.')
@minValue(1)
param purgeVersionsAfterDays int = 1

@description('Whether changes are logged in the change feed. Object replication needs it at its source.')
param changeFeed bool = false

@description('Days for which the change feed is kept.')
@minValue(1)
param changeFeedDays int = 30

@description('Whether account keys, and with them SAS of account keys, are accepted. Not needed with Entra identities.')
param allowSharedKeyAccess bool = false

@description('Whether the account has a public endpoint. Without one a private endpoint is needed, which is not made here.')
@allowed([
  'Enabled'
  'Disabled'
])
param publicNetworkAccess string = 'Enabled'

@description('Addresses and ranges that may use the public endpoint, such as 203.0.113.0/24. None: all may.')
param allowedAddresses array = []

@description('Subnets that may use the public endpoint: resource ids. They need a service endpoint for Microsoft.Storage.')
param allowedSubnets array = []

@description('Whether the account is locked against being deleted.')
param lockAccount bool = true

@description('What the names of the custom roles begin with. They must be unique in the tenant.')
param rolePrefix string = 'Keepstone ${accountName}'

@description('Object ids of service principals and managed identities that back up.')
param writers array = []

@description('Object ids of service principals and managed identities that restore and verify only.')
param readers array = []

@description('Object ids of service principals and managed identities that prune. Never those of a backup host.')
param pruners array = []

@description('Object ids of people who make repositories and remove key slots: they get the role of the pruner.')
param operators array = []

@description('What the object ids of operators are.')
@allowed([
  'User'
  'Group'
])
param operatorType string = 'Group'

var blobs = 'Microsoft.Storage/storageAccounts/blobServices/containers/blobs'
var restricted = !empty(allowedAddresses) || !empty(allowedSubnets)

resource account 'Microsoft.Storage/storageAccounts@2023-05-01' = {
  name: accountName
  location: location
  kind: 'StorageV2'
  sku: {
    name: sku
  }
  properties: {
    // Keepstone names a tier for every blob; this one is for what other tools put here.
    accessTier: 'Hot'
    allowBlobPublicAccess: false
    allowCrossTenantReplication: false
    allowSharedKeyAccess: allowSharedKeyAccess
    defaultToOAuthAuthentication: true
    isHnsEnabled: false
    minimumTlsVersion: 'TLS1_2'
    publicNetworkAccess: publicNetworkAccess
    supportsHttpsTrafficOnly: true
    networkAcls: {
      // Without this exception the network rules stop the lifecycle rule below.
      bypass: 'AzureServices'
      defaultAction: restricted ? 'Deny' : 'Allow'
      ipRules: [for address in allowedAddresses: {
        action: 'Allow'
        value: address
      }]
      virtualNetworkRules: [for subnet in allowedSubnets: {
        action: 'Allow'
        id: subnet
      }]
    }
  }
}

resource blobService 'Microsoft.Storage/storageAccounts/blobServices@2023-05-01' = {
  parent: account
  name: 'default'
  properties: {
    isVersioningEnabled: versioning
    changeFeed: changeFeed ? {
      enabled: true
      retentionInDays: changeFeedDays
    } : {
      enabled: false
    }
    deleteRetentionPolicy: {
      enabled: true
      days: softDeleteDays
      // Nothing, not even a previous version, can be removed at once.
      allowPermanentDelete: false
    }
    containerDeleteRetentionPolicy: {
      enabled: true
      days: softDeleteDays
    }
  }
}

resource container 'Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01' = {
  parent: blobService
  name: containerName
  properties: {
    publicAccess: 'None'
  }
}

// Versions only: a rule for current versions must never delete, and may move nothing but data packs.
resource lifecycle 'Microsoft.Storage/storageAccounts/managementPolicies@2023-05-01' = if (versioning) {
  parent: account
  name: 'default'
  dependsOn: [
    blobService
  ]
  properties: {
    policy: {
      rules: [
        {
          name: 'keepstonePurgePreviousVersions'
          enabled: true
          type: 'Lifecycle'
          definition: {
            filters: {
              blobTypes: [
                'blockBlob'
              ]
              prefixMatch: [
                '${containerName}/'
              ]
            }
            actions: {
              version: {
                delete: {
                  daysAfterCreationGreaterThan: purgeVersionsAfterDays
                }
              }
            }
          }
        }
      ]
    }
  }
}

resource lock 'Microsoft.Authorization/locks@2020-05-01' = if (lockAccount) {
  scope: account
  name: 'keepstone-backups'
  properties: {
    level: 'CanNotDelete'
    notes: 'This account holds backups.'
  }
}

// Not in any role: blobs/write (it overwrites) and blobs/deleteBlobVersion/action (it removes what a delete left).
resource writerRole 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(resourceGroup().id, accountName, 'keepstone writer')
  properties: {
    roleName: '${rolePrefix} writer'
    description: 'Reads, lists and creates blobs; cannot overwrite or delete. For hosts that back up.'
    type: 'CustomRole'
    assignableScopes: [
      resourceGroup().id
    ]
    permissions: [
      {
        actions: []
        dataActions: [
          '${blobs}/read'
          '${blobs}/add/action'
        ]
      }
    ]
  }
}

resource readerRole 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(resourceGroup().id, accountName, 'keepstone reader')
  properties: {
    roleName: '${rolePrefix} reader'
    description: 'Reads and lists blobs. For restores and verifications.'
    type: 'CustomRole'
    assignableScopes: [
      resourceGroup().id
    ]
    permissions: [
      {
        actions: []
        dataActions: [
          '${blobs}/read'
        ]
      }
    ]
  }
}

resource prunerRole 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(resourceGroup().id, accountName, 'keepstone pruner')
  properties: {
    roleName: '${rolePrefix} pruner'
    description: 'Reads, lists, creates and deletes blobs; cannot overwrite or remove versions. Not for backup hosts.'
    type: 'CustomRole'
    assignableScopes: [
      resourceGroup().id
    ]
    permissions: [
      {
        actions: []
        dataActions: [
          '${blobs}/read'
          '${blobs}/add/action'
          '${blobs}/delete'
        ]
      }
    ]
  }
}

resource writerAssignments 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for principal in writers: {
  scope: container
  name: guid(container.id, principal, 'keepstone writer')
  properties: {
    principalId: principal
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', writerRole.name)
  }
}]

resource readerAssignments 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for principal in readers: {
  scope: container
  name: guid(container.id, principal, 'keepstone reader')
  properties: {
    principalId: principal
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', readerRole.name)
  }
}]

resource prunerAssignments 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for principal in pruners: {
  scope: container
  name: guid(container.id, principal, 'keepstone pruner')
  properties: {
    principalId: principal
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', prunerRole.name)
  }
}]

resource operatorAssignments 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for principal in operators: {
  scope: container
  name: guid(container.id, principal, 'keepstone operator')
  properties: {
    principalId: principal
    principalType: operatorType
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', prunerRole.name)
  }
}]

@description('What to give to keepstone -r, with a /PREFIX behind it if you like.')
output repository string = 'azblob://${account.name}/${container.name}'

@description('The option for other clouds than the public one: append it to the repository in quotes.')
output endpoint string = '?endpoint=${account.properties.primaryEndpoints.blob}'
